//! How a figure is printed: ours, its baseline in the same run, the ratio and the goal. `bin/bench` reads it.
//!
//! A goal is `15 ms` or `400 MB` (at most), `0.55` (the ratio, at most), `+150 ms` (more than the baseline, at most),
//! `at least 3.00` (the ratio), or `-`.

/// Beside a baseline; both in seconds.
pub fn line(what: &str, ours: f64, baseline: &str, theirs: f64, goal: &str) {
    compared(what, (ours * 1e3, theirs * 1e3, "ms"), baseline, goal);
}

/// Beside a baseline, in this unit.
pub fn compared(what: &str, (ours, theirs, unit): (f64, f64, &str), baseline: &str, goal: &str) {
    let ratio = ours / theirs.max(1e-3);
    println!("{what:<60} {ours:>9.1} {unit:<4}  {baseline}: {theirs:.1} {unit}  ratio {ratio:.2}  goal {goal}");
}

/// By itself.
pub fn alone(what: &str, value: f64, unit: &str, goal: &str) {
    println!("{what:<60} {value:>9.1} {unit:<4}  goal {goal}");
}
