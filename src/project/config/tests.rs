use std::fmt::Write as _;

use super::*;
use crate::project::yaml;

fn parse(text: &str) -> Result<Config, Fault> {
    yaml::parse(Path::new("config.yaml"), text.as_bytes())
}

#[test]
fn the_template_parses_and_its_comments_show_the_real_defaults() {
    let id = Name::parse("project", "demo").unwrap();
    let plain = parse(&template(&id)).unwrap();
    // A commented key is `#key` or `#  key`; prose starts with `# `.
    let uncommented: String = template(&id)
        .lines()
        .map(|l| match l.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') || rest.starts_with("  ") => {
                format!("{rest}\n")
            }
            _ => format!("{l}\n"),
        })
        .collect();
    assert_eq!(parse(&uncommented).unwrap(), plain);
}

#[test]
fn fuzz_a_configuration() {
    let id = Name::parse("project", "demo").unwrap();
    let uncommented = template(&id).replace("\n#", "\n");
    let mut samples = crate::domain::fuzz::samples_in("fuzz/seeds/config");
    samples.extend([template(&id), uncommented].map(String::into_bytes));
    crate::domain::fuzz::fuzz(&samples, |bytes| {
        let file = Path::new("config.yaml");
        // What is refused says where; a fault without a place helps nobody.
        match yaml::parse::<Config>(file, bytes) {
            Ok(config) => drop(config.check(file)),
            Err(fault) => assert!(fault.what.contains("config.yaml") && !fault.fix.is_empty(), "{fault:?}"),
        }
    });
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let unknown = parse("version: 1\nproject_id: a\nworktre: {}\n").unwrap_err();
    assert!(unknown.what.starts_with("config.yaml:3:1:") && unknown.what.contains("worktre"), "{unknown}");
    let wrong = parse("version: 1\nproject_id: a\nlimits:\n  parallel: many\n").unwrap_err();
    assert!(wrong.what.starts_with("config.yaml:4:"), "{wrong}");
    assert!(parse("version: 1\nversion: 1\nproject_id: a\n").is_err(), "duplicate keys");
    assert!(parse("version: 1\nproject_id: A/B\n").is_err(), "ids follow the rule");
}

#[test]
fn bombs_and_cycles_end_in_an_error() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        let refs = vec![format!("*a{}", n - 1); 10].join(", ");
        writeln!(bomb, "a{n}: &a{n} [{refs}]").unwrap();
    }
    assert!(parse(&bomb).is_err());
    assert!(parse("version: 1\nproject_id: &a [*a]\n").is_err());
    assert!(parse(&format!("version: {}1{}\n", "[".repeat(5000), "]".repeat(5000))).is_err());
}
