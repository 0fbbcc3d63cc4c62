# A repository on a disk of its own, which is filled at every turn: what was there is there afterwards.
# usage: full_disk.sh FOLDER VNX, in a mount namespace of its own.
set -eu
small=$1 vnx=$2
log=$small.log
mount -t tmpfs -o size=32m,mode=700 tmpfs "$small"
mkdir "$small/repo"
cd "$small/repo"
git init -q -b main
echo one > README.md
git add .
git commit -qm first
"$vnx" -q init
printf 'version: 1\nproject_id: repo\nworktree: {disk_floor: 0B}\n' > .vnx/config.yaml

fail() { echo "$*" >&2; cat "$log" >&2; exit 1; }
run() { # the exit codes that are right, then the arguments
  right=$1; shift
  code=0
  "$vnx" "$@" > "$log" 2>&1 || code=$?
  case " $right " in *" $code "*) ;; *) fail "vnx $* ended with $code, not one of: $right" ;; esac
  ! grep -q panicked "$log" || fail "vnx $* panicked"
}
# To the last byte, but for $1 KiB.
fill() {
  head -c "$1"k /dev/zero > ../room
  cat /dev/zero > ../filler 2>/dev/null || true
  rm ../room
}
free() { rm -f ../filler; }
quiet() { while grep -qszxF "$small/repo/.git/vnx" /proc/[0-9]*/cmdline; do sleep 0.05; done; }
script() { run "$1" dispatch-agent --provider shell --agent hello-world --no-pane -i "$2"; quiet; }
content() { (cd "$1" && find . -type f ! -path './.git' -exec sha256sum {} + | sort -k 2); }

script 4 'head -c 3000000 /dev/urandom > large; mkdir d; echo u > d/u; echo 2 >> README.md; git add README.md; echo 3 >> README.md'
id=$(ls ../repo.worktrees)
tree=$small/repo.worktrees/$id
before=$(content "$tree")

for room in 0 8 64 512 2048; do
  fill $room
  run "0 5 74" worktree gc --apply --older-than 0s
  free
  if [ ! -e "$tree" ]; then
    [ $room = 2048 ] || fail "gone with $room KiB of room"
    break
  fi
  [ "$(content "$tree")" = "$before" ] || fail "gc with $room KiB of room changed the tree"
done
run 0 worktree gc --apply --older-than 0s
[ ! -e "$tree" ] || fail "gc did not reclaim it when there was room"
git prune --expire=now

for room in 0 8 64 512 2048; do
  fill $room
  run "0 5 74" undo "$id"
  free
  # Whole, or not there.
  if [ -e "$tree" ]; then break; fi
done
if [ ! -e "$tree" ]; then run 0 undo "$id"; fi
[ "$(content "$tree")" = "$before" ] || fail "undo did not bring everything back"
[ "$(git -C "$tree" show :README.md)" = "one
2" ] || fail "undo did not bring the index back"

# Another dispatch on a full disk is refused, or ends with its story told.
for room in 0 8 64 512; do
  fill $room
  script "0 1 3 4 5 74" 'echo 1 > f; git add f; git commit -qm f'
  free
  run "0" ps
done
# A worker that fills the disk itself: what it had written before is there.
script "0 1 4 5 74" 'echo kept > kept; cat /dev/zero > full 2>/dev/null || true; echo more > more || true'
rm -f ../repo.worktrees/*/full
run 0 ps
quiet
[ "$(cat ../repo.worktrees/*/kept)" = kept ] || fail "the work is gone"
[ -z "$(ls .git/vnx/open)" ] || fail "a dispatch is open"
run 0 audit-chain verify
run 0 worktree gc --apply --older-than 0s
[ ! -e ../repo.worktrees ] || fail "left: $(ls ../repo.worktrees)"
