//! Other processes as the kernel shows them: `/proc` for looking, pidfds for touching.
//!
//! A pid is a guess that can be reused; a pidfd is the process. Everything that signals opens
//! the pidfd first and checks the identity (start time) after, so the signal cannot go astray.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, getpgrp, kill_process, kill_process_group, pidfd_open,
    pidfd_send_signal, waitid,
};

/// One process at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: i32,
    /// Parent.
    pub parent: i32,
    /// Process group.
    pub group: i32,
    /// Session.
    pub session: i32,
    /// The device number of its controlling terminal; 0: it has none.
    pub terminal: i32,
    /// Start time in clock ticks since boot; with the pid it names the process for good.
    pub start_ticks: u64,
    /// Stopped by a signal, or by who traces it: it does nothing until it is told to go on.
    pub stopped: bool,
    /// Already dead, not yet reaped.
    pub zombie: bool,
    /// The executable's short name.
    pub name: String,
}

impl Process {
    /// Reads `/proc/<pid>/stat` (proc_pid_stat(5)); `None` when the process is gone.
    pub fn read(pid: i32) -> Option<Self> {
        let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        // The name is in parentheses and may itself hold blanks and parentheses.
        let (open, close) = (text.find('(')?, text.rfind(')')?);
        let fields: Vec<&str> = text.get(close + 2..)?.split(' ').collect();
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            terminal: fields.get(4)?.parse().ok()?,
            start_ticks: fields.get(19)?.parse().ok()?,
            stopped: matches!(*fields.first()?, "T" | "t"),
            // One whose first thread is gone runs on in its others.
            zombie: (*fields.first()? == "Z" || *fields.first()? == "X") && fields.get(17)?.parse::<u32>().ok()? <= 1,
            name: text.get(open + 1..close)?.chars().filter(|c| !c.is_control()).collect(),
        })
    }

    /// `pid name`, for people and receipts.
    pub fn label(&self) -> String {
        format!("{} {}", self.pid, self.name)
    }

    /// A handle on exactly this process, or `None` when it is gone or its pid was reused.
    pub fn handle(&self) -> Option<OwnedFd> {
        let fd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        let still = Self::read(self.pid)?;
        (still.start_ticks == self.start_ticks).then_some(fd)
    }

    /// Sends a signal to exactly this process; `false` when it is gone.
    pub fn signal(&self, signal: Signal) -> bool {
        self.handle().is_some_and(|fd| pidfd_send_signal(fd, signal).is_ok())
    }

    /// Whether its working folder, its root or its program is in `folder` or below it.
    pub fn stands_in(&self, folder: &Path) -> bool {
        let is_in =
            |link: &&str| fs::read_link(format!("/proc/{}/{link}", self.pid)).is_ok_and(|p| p.starts_with(folder));
        ["cwd", "root", "exe"].iter().any(is_in)
    }

    /// Its arguments, the program's name first; none where they cannot be read.
    pub fn args(&self) -> Vec<OsString> {
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let args = line.strip_suffix(b"\0").unwrap_or_default().split(|b| *b == 0);
        args.map(|arg| OsStr::from_bytes(arg).to_owned()).collect()
    }

    /// Whether its environment holds `NAME=value`. Unreadable (another user's) counts as no.
    pub fn has_env(&self, assignment: &str) -> bool {
        let holds = |bytes: &[u8]| bytes.split(|b| *b == 0).any(|entry| entry == assignment.as_bytes());
        match fs::read(format!("/proc/{}/environ", self.pid)) {
            Ok(bytes) if !bytes.is_empty() => holds(&bytes),
            Err(_) => false,
            // Its first thread is gone, and has no memory; the others have.
            Ok(_) => fs::read_dir(format!("/proc/{}/task", self.pid))
                .into_iter()
                .flatten()
                .flatten()
                .any(|thread| fs::read(thread.path().join("environ")).is_ok_and(|bytes| holds(&bytes))),
        }
    }

    /// Which pseudo-terminal (`/dev/pts/N`) its controlling terminal is, if it is one.
    pub fn pseudo_terminal(&self) -> Option<u32> {
        const PTS: u32 = 136;
        let device = self.terminal.cast_unsigned();
        // proc_pid_stat(5): the minor number is in bits 31 to 20 and 7 to 0, the major one in between.
        let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
        (major == PTS).then_some(minor)
    }

    /// The arguments that it was started with, without the program's name; none where they cannot be read.
    pub fn arguments(&self) -> Vec<String> {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let text = String::from_utf8_lossy(bytes.strip_suffix(b"\0").unwrap_or(&bytes)).into_owned();
        text.split('\0').skip(1).map(str::to_owned).collect()
    }

    /// The names of the variables that it was started with; none where they cannot be read.
    pub fn variables(&self) -> Vec<String> {
        let bytes = fs::read(format!("/proc/{}/environ", self.pid)).unwrap_or_default();
        let names = bytes.split(|byte| *byte == 0).filter_map(|entry| entry.split(|byte| *byte == b'=').next());
        names.filter(|name| !name.is_empty()).map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    /// Whether it is between two programs: during an `exec` it shows neither arguments nor
    /// environment, so nobody can tell whose it is. Threads of the kernel never show any.
    pub fn is_between_programs(&self) -> bool {
        const KERNEL_THREADS: i32 = 2;
        let is_empty = |file| fs::read(format!("/proc/{}/{file}", self.pid)).is_ok_and(|bytes| bytes.is_empty());
        !self.zombie
            && self.pid != KERNEL_THREADS
            && self.parent != KERNEL_THREADS
            && is_empty("environ")
            && is_empty("cmdline")
    }
}

/// All processes now, by pid. `None` when `/proc` cannot be read.
pub fn all() -> Option<BTreeMap<i32, Process>> {
    let entries = fs::read_dir("/proc").ok()?;
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    Some(pids.filter_map(|pid| Process::read(pid).map(|p| (pid, p))).collect())
}

/// The children of a process, dead ones that nobody reaped included. `None` where the kernel
/// does not list them (it was built without CONFIG_PROC_CHILDREN).
fn children(pid: i32) -> Option<Vec<i32>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        match fs::read_to_string(task.path().join("children")) {
            Ok(text) => found.extend(text.split_whitespace().filter_map(|p| p.parse::<i32>().ok())),
            // A thread may end while it is looked at; a kernel without the file has it nowhere.
            Err(_) if task.path().exists() => return None,
            Err(_) => {}
        }
    }
    Some(found)
}

/// Whether any live process has its working folder in `folder` or below it. Other users'
/// processes can only be seen by root. `None` when `/proc` cannot be read.
pub fn anyone_in(folder: &Path) -> Option<bool> {
    let pids = fs::read_dir("/proc").ok()?.flatten().filter(|e| e.file_name().as_encoded_bytes()[0].is_ascii_digit());
    Some(pids.map(|e| e.path().join("cwd")).any(|cwd| fs::read_link(cwd).is_ok_and(|c| c.starts_with(folder))))
}

/// Whether any live process has its working folder or an open file in `folder` or below it. Slower than [`anyone_in`]:
/// every open file of every process is looked at. `None` when `/proc` cannot be read.
pub fn anyone_holds(folder: &Path) -> Option<bool> {
    if anyone_in(folder)? {
        return Some(true);
    }
    let pids = fs::read_dir("/proc").ok()?.flatten().filter(|e| e.file_name().as_encoded_bytes()[0].is_ascii_digit());
    let open = pids.flat_map(|e| fs::read_dir(e.path().join("fd")).into_iter().flatten().flatten());
    Some(open.map(|e| e.path()).any(|fd| fs::read_link(fd).is_ok_and(|file| file.starts_with(folder))))
}

/// Whether a program runs whose name has `program` in it (some systems wrap it: `.git-wrapped`) and whose arguments, each before a NUL, are such. `None` where
/// `/proc` does not show every process (proc(5), `hidepid`).
pub fn anyone(program: &str, is_such: impl Fn(&[u8]) -> bool) -> Option<bool> {
    // One that nobody may read is the first.
    fs::read("/proc/1/cmdline").ok()?;
    let is_one = |pid: i32| {
        let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.windows(program.len()).any(|part| part == program.as_bytes())
            && fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| is_such(line.strip_suffix(b"\0").unwrap_or(&line)))
    };
    let entries = fs::read_dir("/proc").ok()?;
    Some(entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).any(is_one))
}

/// Everything below `root`, nearest first. As `root` is a child subreaper, nothing that it
/// started can leave this set while it lives.
pub fn descendants(root: i32) -> Option<Vec<Process>> {
    let Some(mut queue) = children(root) else { return descendants_by_parent(root) };
    let mut found = Vec::new();
    while let Some(pid) = queue.pop() {
        let Some(process) = Process::read(pid) else { continue };
        // A process that dies here hands its children to its subreaper, which is asked again
        // by whoever wants an empty set proven.
        queue.extend(children(pid).unwrap_or_default());
        found.push(process);
    }
    Some(found)
}

/// The same from the parents of all processes.
fn descendants_by_parent(root: i32) -> Option<Vec<Process>> {
    let all = all()?;
    let mut children: BTreeMap<i32, Vec<&Process>> = BTreeMap::new();
    for process in all.values() {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = Vec::new();
    let mut queue = vec![root];
    let mut seen = HashSet::from([root]);
    while let Some(parent) = queue.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            if seen.insert(child.pid) {
                queue.push(child.pid);
                found.push((*child).clone());
            }
        }
    }
    Some(found)
}

/// Whether a process runs the program that this one runs, or one of its name.
pub fn is_own_program(pid: i32) -> bool {
    use std::os::unix::fs::MetadataExt;
    let file = |pid: &str| fs::metadata(format!("/proc/{pid}/exe")).ok().map(|meta| (meta.dev(), meta.ino()));
    let name = fs::read_link(format!("/proc/{pid}/exe")).ok();
    let named = name.and_then(|path| Some(path.file_name()?.as_encoded_bytes().starts_with(b"vnx")));
    let same = matches!((file(&pid.to_string()), file("self")), (Some(theirs), Some(ours)) if theirs == ours);
    same || named.unwrap_or(false)
}

/// A process and its ancestors, nearest first; and whether that is all of them, as far as they are this user's. One that
/// somebody hides, and one whose parent died at that very moment, is not taken for the first.
pub fn lineage(pid: i32) -> (Vec<Process>, bool) {
    let (mut line, mut next): (Vec<Process>, i32) = (Vec::new(), pid);
    // Nothing is this deep; a line that keeps changing has an end too.
    for _ in 0..10_000 {
        if next <= 0 {
            return (line, true);
        }
        if let Some(process) = Process::read(next) {
            next = process.parent;
            line.push(process);
            continue;
        }
        // A child has another parent as soon as the one that was read is dead.
        let Some(last) = line.last_mut() else { break };
        match Process::read(last.pid) {
            Some(again) if again.parent != next => {
                next = again.parent;
                *last = again;
            }
            // Other users' processes can be hidden from everybody (proc(5), `hidepid`), and are no workers.
            Some(_) => {
                let parent = Pid::from_raw(next).map(rustix::process::test_kill_process);
                return (line, parent == Some(Err(rustix::io::Errno::PERM)));
            }
            None => break,
        }
    }
    (line, false)
}

/// The processes that hold the other end of a pseudo-terminal: terminal emulators, multiplexers, supervisors. Only those
/// that this user may look into.
pub fn terminal_holders(index: u32) -> Vec<i32> {
    let wanted = format!("tty-index:\t{index}");
    let holds = |pid: &i32| {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let is_master = |path: &Path| fs::read_link(path).is_ok_and(|to| to.ends_with("ptmx"));
        let mut masters = entries.filter(|entry| is_master(&entry.path()));
        masters.any(|entry| {
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_string_lossy()));
            info.is_ok_and(|text| text.lines().any(|line| line == wanted))
        })
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(holds).collect()
}

/// This process and its ancestors: never to be signalled by a sweep.
pub fn own_line() -> HashSet<i32> {
    let mut line = HashSet::new();
    let mut pid = own_pid();
    while pid > 0 && line.insert(pid) {
        pid = Process::read(pid).map_or(0, |p| p.parent);
    }
    line
}

/// Reaps adopted children that have died: `(pid)`s that `wait` of their own would never see.
/// The worker itself is left to whoever spawned it.
pub fn reap_adopted(except: Option<i32>) {
    let me = own_pid();
    let own = match children(me) {
        Some(pids) => pids.into_iter().filter_map(Process::read).collect(),
        None => all().map(|a| a.into_values().collect::<Vec<_>>()).unwrap_or_default(),
    };
    for process in own.iter().filter(|p| p.parent == me && p.zombie && Some(p.pid) != except) {
        reap(process.pid);
    }
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(0)
}

fn reap(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // Somebody else may have reaped it in between.
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
}

/// Reaps every child that has died, and says whether no child is left.
///
/// For a child subreaper that is the proof that nothing it started is left: the kernel answers ECHILD under the lock
/// under which processes fork and orphans get their new parent, so it misses no fork, as any listing of `/proc` may.
/// Only for who waits for none of its children in another way.
pub fn no_child_is_left() -> bool {
    reap_all(|| {})
}

/// The same; `killed` hears of each that has died by SIGKILL.
fn reap_all(mut killed: impl FnMut()) -> bool {
    // Children that were made with another signal than SIGCHLD too (clone(2)).
    const WALL: u32 = 0x4000_0000;
    let how = WaitOptions::NOHANG | WaitOptions::from_bits_retain(WALL);
    loop {
        match rustix::process::wait(how) {
            Ok(Some((_, status))) if status.terminating_signal() == Some(Signal::KILL.as_raw()) => killed(),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return false,
            Err(error) => return error == Errno::CHILD,
        }
    }
}

/// Kills everything below this process, which is a child subreaper, until the kernel says that nothing is left (`true`)
/// or the time is up. `killed` hears of each that has died of it.
///
/// It never pauses: what forks and exits faster than it can be listed is caught because its fork takes longer than a
/// look and a kill, or at the latest by its dead, which name its process group.
pub fn kill_below(until: Instant, mut killed: impl FnMut()) -> bool {
    // Of thousands it is enough to look at some: the others are killed all the same, and are some of the next round.
    const LOOKED_AT: usize = 64;
    let (me, own_group) = (own_pid(), getpgrp());
    loop {
        let direct = children(me).unwrap_or_default();
        // A child of ours keeps its number until we reap it, so it needs no handle; and nothing comes between look and
        // kill. What is below it is our child as soon as it is dead.
        for pid in direct.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        for child in direct.into_iter().take(LOOKED_AT).filter_map(Process::read) {
            // Until it is reaped, its group's number is nobody else's. A kill of a group misses no fork.
            let group = Pid::from_raw(child.group).filter(|group| child.zombie && *group != own_group);
            let _ = group.map(|group| kill_process_group(group, Signal::KILL));
        }
        if reap_all(&mut killed) {
            return true;
        }
        if Instant::now() >= until {
            break;
        }
    }
    // Some child does not die, or not yet, so that what is below it stays there.
    for process in descendants(me).unwrap_or_default().iter().filter(|p| p.parent != me && !p.zombie) {
        process.signal(Signal::KILL);
    }
    reap_all(killed)
}

/// Kills those children of this process whose environment holds one of these assignments.
pub fn kill_children_with(assignments: &[String]) {
    let own = children(own_pid()).unwrap_or_default().into_iter().filter_map(Process::read);
    for child in own.filter(|child| assignments.iter().any(|assignment| child.has_env(assignment))) {
        child.signal(Signal::KILL);
    }
}

/// The effective user id.
pub fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Lets a write beyond the limit on the size of files (`ulimit -f`) fail with an error that can be
/// told, instead of ending the process without a word. Children begin with the default again.
pub fn survive_file_limit() {
    // Only that it is handled matters, not by what.
    let _ = signal_hook::flag::register(signal_hook::consts::signal::SIGXFSZ, std::sync::Arc::default());
}

/// What a terminal sends for ctrl-\ ends this process with exit code 0: there it is the key that leaves a view.
pub fn leave_on_quit() {
    let at_once = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    // Where it cannot be had, the key kills, as it does everywhere.
    let _ = signal_hook::flag::register_conditional_shutdown(signal_hook::consts::signal::SIGQUIT, 0, at_once);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lineage_is_whole_or_says_that_it_is_not() {
        let me = i32::try_from(std::process::id()).unwrap();
        let (line, is_whole) = lineage(me);
        assert!(is_whole && line.len() > 1 && line[0].pid == me, "{line:?}");
        assert!(line.windows(2).all(|pair| pair[0].parent == pair[1].pid), "{line:?}");
        assert_eq!(lineage(i32::MAX), (Vec::new(), false), "one that is not there");
    }
}
