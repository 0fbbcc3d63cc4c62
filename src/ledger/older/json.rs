//! JSON as Python's `json` module reads and writes it, because that is what an older ledger hashed.
//!
//! `json.dumps(json.loads(line), sort_keys=True, separators=(",", ":"))`: members sorted by code
//! point, the last of two equal names counts, everything outside printable ASCII escaped, integers
//! of any length, floats by their shortest digits, and the words NaN and Infinity, which are no
//! JSON. Lone surrogates are kept, so texts are code points here and not `str`.

use std::fmt::Write as _;

/// Nested deeper than this is refused; Python gives up at about a thousand.
const MAX_DEPTH: usize = 900;
/// Python reads no integer with more digits than this.
const MAX_DIGITS: usize = 4300;

/// A member: its name as code points, its value as canonical text.
type Member = (Vec<u32>, String);

/// The members of an object in canonical order, each once.
///
/// # Errors
/// What keeps Python from reading it, or that it is no object.
pub(super) fn members(line: &[u8]) -> Result<Vec<Member>, String> {
    let text = std::str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned())?;
    let mut reader = Reader { text, at: 0 };
    reader.blanks();
    if reader.peek() != Some(b'{') {
        return Err(if text.trim().is_empty() { "it is empty" } else { "it is no JSON object" }.to_owned());
    }
    let members = reader.object(0)?;
    reader.blanks();
    if reader.at == text.len() { Ok(members) } else { Err(reader.wrong("something follows the object")) }
}

/// An object as canonical text.
pub(super) fn object(members: &[Member]) -> String {
    let mut out = String::from("{");
    for (n, (name, value)) in members.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        escape(name, &mut out);
        out.push(':');
        out.push_str(value);
    }
    out.push('}');
    out
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
    fn wrong(&self, what: &str) -> String {
        format!("{what} at byte {}", self.at)
    }
    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
    fn take(&mut self, word: &str) -> bool {
        let there = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        self.at += if there { word.len() } else { 0 };
        there
    }

    fn value(&mut self, depth: usize, out: &mut String) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(self.wrong("it is nested too deeply"));
        }
        match self.peek() {
            Some(b'{') => out.push_str(&object(&self.object(depth)?)),
            Some(b'[') => self.array(depth, out)?,
            Some(b'"') => escape(&self.string()?, out),
            Some(b'-' | b'0'..=b'9') if !self.text[self.at..].starts_with("-I") => out.push_str(&self.number()?),
            _ => {
                let words = ["true", "false", "null", "NaN", "Infinity", "-Infinity"];
                let word = words.into_iter().find(|word| self.take(word));
                out.push_str(word.ok_or_else(|| self.wrong("no value stands"))?);
            }
        }
        Ok(())
    }

    fn array(&mut self, depth: usize, out: &mut String) -> Result<(), String> {
        self.at += 1;
        out.push('[');
        self.blanks();
        let mut first = true;
        while !(first && self.take("]")) {
            if !first {
                out.push(',');
            }
            first = false;
            self.blanks();
            self.value(depth + 1, out)?;
            self.blanks();
            if self.take("]") {
                break;
            }
            if !self.take(",") {
                return Err(self.wrong("no comma stands"));
            }
        }
        out.push(']');
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<Vec<Member>, String> {
        self.at += 1;
        let mut members: Vec<Member> = Vec::new();
        self.blanks();
        while !(members.is_empty() && self.take("}")) {
            self.blanks();
            if self.peek() != Some(b'"') {
                return Err(self.wrong("no name of a member stands"));
            }
            let name = self.string()?;
            self.blanks();
            if !self.take(":") {
                return Err(self.wrong("no colon stands"));
            }
            self.blanks();
            let mut value = String::new();
            self.value(depth + 1, &mut value)?;
            members.push((name, value));
            self.blanks();
            if self.take("}") {
                break;
            }
            if !self.take(",") {
                return Err(self.wrong("no comma stands"));
            }
        }
        // Stable, so the last of equal names is the last of its run.
        members.sort_by(|a, b| a.0.cmp(&b.0));
        members.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
        Ok(members)
    }

    fn string(&mut self) -> Result<Vec<u32>, String> {
        self.at += 1;
        let mut points = Vec::new();
        loop {
            let Some(c) = self.text[self.at..].chars().next() else {
                return Err(self.wrong("a text has no end"));
            };
            match c {
                '"' => break,
                '\\' => points.push(self.escaped()?),
                '\0'..='\x1f' => return Err(self.wrong("a control character stands in a text")),
                c => {
                    points.push(u32::from(c));
                    self.at += c.len_utf8();
                }
            }
        }
        self.at += 1;
        Ok(points)
    }

    fn escaped(&mut self) -> Result<u32, String> {
        let letter = self.text.as_bytes().get(self.at + 1).copied();
        let point = match letter {
            Some(b'u') => return self.escaped_point(),
            Some(c @ (b'"' | b'\\' | b'/')) => c,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => 10,
            Some(b'r') => 13,
            Some(b't') => 9,
            _ => return Err(self.wrong("an escape is unknown")),
        };
        self.at += 2;
        Ok(u32::from(point))
    }

    fn escaped_point(&mut self) -> Result<u32, String> {
        let unit = |at: usize| {
            let digits = self.text.as_bytes().get(at..at + 6)?.strip_prefix(b"\\u")?;
            let hex = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
            u32::from_str_radix(hex, 16).ok()
        };
        let high = unit(self.at).ok_or_else(|| self.wrong("an escape has not four hex digits"))?;
        let low = unit(self.at + 6).filter(|low| (0xdc00..0xe000).contains(low) && (0xd800..0xdc00).contains(&high));
        self.at += if low.is_some() { 12 } else { 6 };
        Ok(low.map_or(high, |low| 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)))
    }

    fn number(&mut self) -> Result<String, String> {
        let start = self.at;
        let digits = |reader: &mut Self| {
            let before = reader.at;
            while reader.peek().is_some_and(|b| b.is_ascii_digit()) {
                reader.at += 1;
            }
            reader.at > before
        };
        self.take("-");
        // A zero in front is a number of its own, and what follows it is an error elsewhere.
        if !self.take("0") && !digits(self) {
            return Err(self.wrong("no digit stands"));
        }
        let whole = self.at;
        for (marks, sign) in [(&["."][..], false), (&["e", "E"][..], true)] {
            let before = self.at;
            if marks.iter().any(|mark| self.take(mark)) {
                let _ = sign && (self.take("+") || self.take("-"));
                // Python's pattern then ends before the mark.
                if !digits(self) {
                    self.at = before;
                }
            }
        }
        let text = &self.text[start..self.at];
        if self.at == whole {
            if text.trim_start_matches('-').len() > MAX_DIGITS {
                return Err(self.wrong("an integer has more digits than Python reads"));
            }
            return Ok(if text == "-0" { "0" } else { text }.to_owned());
        }
        text.parse().map(float).map_err(|_| self.wrong("a number cannot be read"))
    }
}

/// A float as Python's `repr` has it: the shortest digits that read back as the same value, with an
/// exponent below 1e-4 and from 1e16 on.
fn float(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    // The shortest digits; of two that are equally near, Rust takes the larger one and Python the even one.
    let mut text = format!("{value:e}");
    let digits = text.bytes().take_while(|b| *b != b'e').filter(u8::is_ascii_digit).count();
    let even = format!("{value:.0$e}", digits - 1);
    if even.parse() == Ok(value) {
        text = even;
    }
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        return plain(mantissa, exponent);
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// The same value without an exponent, with a point and at least one digit on each side of it.
fn plain(mantissa: &str, exponent: i32) -> String {
    let (sign, digits) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let mut digits = digits.replace('.', "");
    let before = usize::try_from(exponent + 1).unwrap_or(0);
    if before == 0 {
        digits.insert_str(0, &"0".repeat(exponent.unsigned_abs() as usize));
    }
    let point = before.max(1);
    while digits.len() <= point {
        digits.push('0');
    }
    digits.insert(point, '.');
    format!("{sign}{digits}")
}

/// A text in quotes with everything outside printable ASCII escaped.
fn escape(points: &[u32], out: &mut String) {
    out.push('"');
    for point in points {
        match char::from_u32(*point) {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            Some('\x08') => out.push_str("\\b"),
            Some('\x0c') => out.push_str("\\f"),
            Some(c @ ' '..='~') => out.push(c),
            // A lone surrogate stands as it is.
            None => unit(*point, out),
            Some(c) => c.encode_utf16(&mut [0; 2]).iter().for_each(|half| unit(u32::from(*half), out)),
        }
    }
    out.push('"');
}

fn unit(unit: u32, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(out, "\\u{unit:04x}");
}
