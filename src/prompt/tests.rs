use std::fs;
use std::path::Path;

use super::*;
use crate::domain::Name;

fn name(text: &str) -> Name {
    Name::parse("agent", text).unwrap()
}

#[test]
fn every_embedded_agent_composes_under_its_budget() {
    let nowhere = Path::new("/nonexistent");
    let all = agents(nowhere).unwrap();
    assert_eq!(all.len(), 4);
    for listed in all {
        let agent = agent(nowhere, &Name::parse("agent", &listed.name).unwrap()).unwrap();
        let skills = skills_of(nowhere, &agent).unwrap();
        let composed =
            compose(&agent, &skills, Assignment { text: "Do X.", branch: "vnx/x", paths: &[], by_answer: false });
        assert!(composed.text.starts_with("# Role"), "a prompt must not begin with a slash");
        assert!(composed.overhead < 2560, "{}: {} bytes", listed.name, composed.overhead);
        let bare = compose(&agent, &[], Assignment { text: "Do X.", branch: "vnx/x", paths: &[], by_answer: false });
        assert!(bare.overhead < 2048, "{}: {} bytes", listed.name, bare.overhead);
        assert_eq!(composed.text.matches("Do X.").count(), 1);
    }
}

#[test]
fn a_project_agent_shadows_the_embedded_one() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("agents/hello-world");
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("AGENT.md"), "---\nname: hello-world\ndescription: mine\n---\nBe brief.\n").unwrap();
    let own = agent(folder.path(), &name("hello-world")).unwrap();
    assert_eq!((own.head.description.as_str(), own.body.as_str()), ("mine", "Be brief."));
    fs::write(place.join("AGENT.md"), "---\nname: other\ndescription: mine\n---\n").unwrap();
    assert!(agent(folder.path(), &name("hello-world")).unwrap_err().what.contains("its folder is called"));
    fs::write(place.join("AGENT.md"), "no front matter").unwrap();
    assert!(agent(folder.path(), &name("hello-world")).unwrap_err().what.contains("no front matter"));
}

#[test]
fn resources_are_listed_and_not_pasted() {
    let folder = tempfile::tempdir().unwrap();
    let (a, s) = (folder.path().join("agents/a"), folder.path().join("skills/s"));
    fs::create_dir_all(&a).unwrap();
    fs::create_dir_all(&s).unwrap();
    fs::write(a.join("AGENT.md"), "---\nname: a\ndescription: d\nskills: [s]\n---\nRole.\n").unwrap();
    fs::write(s.join("SKILL.md"), "---\nname: s\ndescription: d\n---\nMethod.\n").unwrap();
    fs::write(s.join("guide.md"), "\nFirst line\nSECOND LINE\n").unwrap();
    let agent = agent(folder.path(), &name("a")).unwrap();
    let skills = skills_of(folder.path(), &agent).unwrap();
    let paths = ["src/**".to_owned()];
    let text = compose(&agent, &skills, Assignment { text: "T", branch: "b", paths: &paths, by_answer: false }).text;
    assert!(text.contains("guide.md (24 bytes): First line") && !text.contains("SECOND"), "{text}");
    assert!(text.contains("Change only files that match: src/**."));
}

#[test]
fn an_unknown_agent_or_skill_is_named_with_what_there_is() {
    let fault = agent(Path::new("/nonexistent"), &name("nobody")).unwrap_err();
    assert!(fault.what.contains("\"nobody\"") && fault.fix.contains("hello-world"));
}
