//! How a figure is printed: ours, its baseline in the same run, the ratio and the goal.

/// Both in seconds.
pub fn line(what: &str, ours: f64, baseline: &str, theirs: f64, bar: &str) {
    println!(
        "{what:<52} {:>8.1} ms   {baseline}: {:>8.1} ms   ratio {:>5.2}   bar {bar}",
        ours * 1e3,
        theirs * 1e3,
        ours / theirs.max(1e-6)
    );
}
