//! Anything that a program writes to its terminal: the screen stays whole, and a picture of it makes the same screen.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vnx::sys::pty::Size;
use vnx::worker::screen::Screen;

fuzz_target!(|bytes: &[u8]| {
    let size = |at: usize| u16::from(bytes.get(at).copied().unwrap_or(9));
    let mut screen = Screen::new(Size { cols: 80, rows: 24 });
    screen.feed(bytes);
    screen.resize(Size { cols: size(0) % 90, rows: size(1) % 40 });
    let mut other = Screen::new(screen.size());
    other.feed(&screen.snapshot());
    assert_eq!(other.text().trim_end(), screen.text().trim_end());
    screen.cropped(Size { cols: size(2), rows: size(3) }, &mut Vec::new());
});
