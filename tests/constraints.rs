//! The shipped constraints, each both ways, and the variants that they speak of. The door decides before
//! anything is started, so programs that only stand there are enough; what the CLIs do is in `clis.rs`.

use std::os::unix::fs::PermissionsExt;

use crate::common::World;

/// A world in which every CLI is installed and none has ever been started.
fn world() -> World {
    let mut world = World::new();
    let bin = world.root.join("bin");
    std::fs::create_dir(&bin).unwrap();
    for name in ["claude", "codex", "gemini", "kimi", "ollama"] {
        let path = bin.join(name);
        std::fs::write(&path, "#!/bin/sh\nexit 9\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    world.set("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    world
}

fn plan(world: &World, route: &str) -> crate::common::Run {
    let args = ["dispatch-agent", "--agent", "backend-developer", "-i", "x", "--dry-run"];
    world.vnx(&[&args[..], &route.split(' ').collect::<Vec<_>>()].concat())
}

#[test]
fn each_shipped_constraint_refuses_what_it_names_and_nothing_else() {
    let mut world = world();
    world.set("DEEPSEEK_API_KEY", "sk-test");
    world.set("ZAI_API_KEY", "sk-test");
    let table = [
        ("--provider claude --lane headless", "claude-headless"),
        ("--provider claude", ""),
        ("--provider claude --lane interactive", ""),
        ("--provider codex --lane headless", ""),
        ("--provider codex --model kimi-k2", "kimi-by-its-cli"),
        ("--provider kimi --model kimi-k2", ""),
        ("--provider claude --model glm-4.6", "glm-by-its-gateway"),
        ("--provider glm", ""),
        ("--provider claude --model deepseek-chat", "deepseek-by-its-endpoint"),
        ("--provider deepseek", ""),
        ("--provider ollama --model qwen3", ""),
        ("--provider claude-ollama --model qwen3", ""),
        ("--provider codex-oss --model qwen3", ""),
    ];
    for (route, rule) in table {
        let run = plan(&world, route);
        let want = if rule.is_empty() { 0 } else { 3 };
        assert_eq!(run.code, want, "{route}\n{}{}", run.out, run.err);
        assert!(rule.is_empty() || run.err.contains(&format!("constraint {rule}:")), "{route}\n{}", run.err);
    }
    // A key that is missing would leave the CLI's own login to pay.
    world.unset("DEEPSEEK_API_KEY");
    let run = plan(&world, "--provider deepseek").expect(3);
    assert!(run.err.contains("constraint deepseek-key:"), "{}", run.err);
    // Endpoints count as the worker would see them, a file of variables included.
    let file = world.root.join("env");
    for (value, code) in [("http://10.0.0.7:11434/v1", 0), ("http://models.example.org/v1", 3)] {
        std::fs::write(&file, format!("CODEX_OSS_BASE_URL={value}\n")).unwrap();
        let route = format!("--provider codex-oss --model qwen3 --env-file {}", file.display());
        plan(&world, &route).expect(code);
    }
    // The user's own MCP servers come along with kimi, and the plan says so.
    let run = plan(&world, "--provider kimi").expect(0);
    assert!(run.out.contains("no-ambient-mcp"), "{}", run.out);
    assert!(!plan(&world, "--provider claude").expect(0).out.contains("no-ambient-mcp"));
}

/// Whatever moves an endpoint is seen before anything is started; what cannot be told is not private.
#[test]
fn an_endpoint_is_where_the_data_really_goes() {
    let mut world = world();
    let shipped = std::fs::read_to_string(world.repo.join(".vnx/provider_constraints.yaml")).unwrap();
    let rule = "  - id: near\n    reason: this code stays here\n    severity: blocking\n    \
                require_route: {when: {provider: claude}, must: {endpoint: private}}\n";
    std::fs::write(world.repo.join(".vnx/provider_constraints.yaml"), format!("{shipped}{rule}")).unwrap();
    let near = ("ANTHROPIC_BASE_URL", "http://127.0.0.1:8080");
    let ollama = "--provider ollama --model qwen3";
    let codex = "--provider codex-oss --model qwen3";
    for (route, variables, code) in [
        ("--provider claude", &[][..], 3),
        ("--provider claude", &[near], 0),
        ("--provider claude", &[near, ("CLAUDE_CODE_USE_BEDROCK", "1")], 3),
        ("--provider claude", &[near, ("CLAUDE_CODE_USE_VERTEX", "true")], 3),
        ("--provider claude", &[near, ("CLAUDE_CODE_USE_FOUNDRY", "1")], 3),
        ("--provider claude", &[near, ("CLAUDE_CODE_USE_WHAT_COMES", "1")], 3),
        ("--provider claude", &[near, ("ANTHROPIC_NEXT_BASE_URL", "https://example.org")], 3),
        ("--provider claude", &[near, ("CLAUDE_CODE_USE_BEDROCK", "0")], 0),
        (
            "--provider claude",
            &[("CLAUDE_CODE_USE_BEDROCK", "1"), ("ANTHROPIC_BEDROCK_BASE_URL", "http://10.0.0.1")],
            0,
        ),
        ("--provider claude", &[near, ("HTTP_PROXY", "http://proxy.example:3128")], 3),
        ("--provider claude", &[near, ("HTTP_PROXY", "http://proxy.example:3128"), ("NO_PROXY", "127.0.0.1")], 0),
        (ollama, &[("HTTP_PROXY", "http://proxy.example:3128")], 0),
        (ollama, &[("OLLAMA_HOST", "10.0.0.7")], 0),
        (ollama, &[("OLLAMA_HOST", "ollama.example:11434")], 3),
        (ollama, &[("OLLAMA_HOST", r"http://evil.example\@127.0.0.1/")], 3),
        (ollama, &[("OLLAMA_HOST", "http://127.0.0.1@evil.example/")], 3),
        (ollama, &[("OLLAMA_HOST", "http://169.254.169.254/")], 3),
        (ollama, &[("OLLAMA_HOST", "[::ffff:169.254.169.254]")], 3),
        (ollama, &[("OLLAMA_HOST", "127.1")], 3),
        (codex, &[("CODEX_OSS_BASE_URL", "http://metadata.google.internal/v1")], 3),
    ] {
        let file = world.root.join("variables");
        let lines: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        std::fs::write(&file, lines.join("\n")).unwrap();
        let by_file = format!("{route} --env-file {}", file.display());
        let run = plan(&world, &by_file);
        assert_eq!(run.code, code, "{route} {variables:?} in a file\n{}{}", run.out, run.err);
        for (name, value) in variables {
            world.set(name, value);
        }
        let run = plan(&world, route);
        assert_eq!(run.code, code, "{route} {variables:?}\n{}{}", run.out, run.err);
        for (name, _) in variables {
            world.unset(name);
        }
    }
    // A variant does not get the switches of its caller, and a file that sets one is found out.
    world.set("DEEPSEEK_API_KEY", "sk-test");
    world.set("CLAUDE_CODE_USE_FOUNDRY", "1");
    plan(&world, "--provider deepseek").expect(0);
    std::fs::write(world.root.join("variables"), "CLAUDE_CODE_USE_FOUNDRY=1\n").unwrap();
    let file = world.root.join("variables").display().to_string();
    let run = plan(&world, &format!("--provider deepseek --env-file {file}")).expect(3);
    assert!(run.err.contains("the endpoint is unknown, because of CLAUDE_CODE_USE_FOUNDRY"), "{}", run.err);
    world.unset("CLAUDE_CODE_USE_FOUNDRY");
    // Its own settings can move it too.
    let settings = world.root.join("home/.claude");
    std::fs::create_dir(&settings).unwrap();
    std::fs::write(settings.join("settings.json"), r#"{"env": {"ANTHROPIC_BASE_URL": "https://example.org"}}"#)
        .unwrap();
    let run = plan(&world, "--provider deepseek").expect(3);
    assert!(run.err.contains("settings.json"), "{}", run.err);
}

/// No rule has to forbid where a machine's credentials are; one that names the address allows it.
#[test]
fn a_metadata_service_is_no_provider_unless_a_rule_names_it() {
    let mut world = world();
    world.set("ANTHROPIC_BASE_URL", "http://169.254.169.254/v1");
    let run = plan(&world, "--provider claude").expect(3);
    assert!(
        run.err.contains("constraint no-metadata-service:") && run.err.contains("ANTHROPIC_BASE_URL"),
        "{}",
        run.err
    );
    let file = world.repo.join(".vnx/provider_constraints.yaml");
    let shipped = std::fs::read_to_string(&file).unwrap();
    let rule = "  - id: mine\n    reason: a stub\n    severity: blocking\n    \
                require_route: {when: {provider: claude}, must: {endpoint: 'http://169.254.169.254/*'}}\n";
    std::fs::write(&file, format!("{shipped}{rule}")).unwrap();
    plan(&world, "--provider claude").expect(0);
    // A pattern that is no address is named with its line.
    std::fs::write(&file, format!("{shipped}{}", rule.replace("http://169.254.169.254/*", "http://10.*"))).unwrap();
    let run = plan(&world, "--provider claude").expect(2);
    assert!(run.err.contains("provider_constraints.yaml:") && run.err.contains("http://10.*"), "{}", run.err);
}

#[test]
fn an_override_is_named_in_a_receipt_and_only_where_it_is_allowed() {
    let world = world();
    let run = plan(&world, "--provider codex --model kimi-k2 --override kimi-by-its-cli=because").expect(3);
    assert!(run.err.contains("cannot be set aside"), "{}", run.err);
    let args =
        ["dispatch-agent", "--agent", "backend-developer", "-i", "x", "--provider", "claude", "--lane", "headless"];
    world.vnx(&args).expect(3);
    assert_eq!(world.last("dispatch.refused")["rule"], "claude-headless");
    let with = ["--override", "claude-headless=a trial run", "--no-pane"];
    // The program that only stands there ends with 9.
    world.person(&[&args[..], &with].concat()).expect(1);
    let used = world.last("override.used");
    assert_eq!((&used["constraint"], &used["reason"]), (&"claude-headless".into(), &"a trial run".into()));
}

/// A variant gets its own key under the name that its CLI reads, and nothing that the caller has for the vendor.
#[test]
fn a_variant_gets_its_own_key_and_endpoint_and_nothing_of_the_vendors() {
    let mut world = world();
    std::fs::write(world.root.join("bin/claude"), "#!/bin/sh\nenv | sort > seen\ngit add seen\ngit commit -qm seen\n")
        .unwrap();
    world.set("DEEPSEEK_API_KEY", "sk-deepseek-0123456789");
    world.set("ANTHROPIC_API_KEY", "sk-ant-of-the-caller");
    world.set("CLAUDE_CODE_OAUTH_TOKEN", "of-the-caller");
    let args =
        ["dispatch-agent", "--agent", "backend-developer", "-i", "x", "--provider", "deepseek", "--lane", "headless"];
    world.vnx(&args);
    let seen = world.git(&["show", &format!("vnx/{}:seen", world.last_id())]);
    assert!(seen.contains("ANTHROPIC_AUTH_TOKEN=sk-deepseek-0123456789"), "{seen}");
    assert!(seen.contains("ANTHROPIC_BASE_URL=https://api.deepseek.com/anthropic"), "{seen}");
    assert!(!seen.contains("of-the-caller") && !seen.contains("\nDEEPSEEK_API_KEY"), "{seen}");
    let plan =
        std::fs::read_to_string(world.state().join("dispatches").join(world.last_id()).join("plan.json")).unwrap();
    assert!(plan.contains("DEEPSEEK_API_KEY") && !plan.contains("sk-deepseek"), "names, never values");
}

#[test]
fn a_variant_extends_one_provider_and_no_other_variant() {
    let world = world();
    let folder = world.repo.join(".vnx/providers");
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, extends: &str| {
        let text = format!("version: 1\nname: {name}\ntitle: a test\nextends: {extends}\n");
        std::fs::write(folder.join(format!("{name}.yaml")), text).unwrap();
    };
    write("mine", "codex");
    plan(&world, "--provider mine").expect(0);
    for (name, extends) in [("mine", "mine"), ("mine", "deepseek"), ("mine", "nobody")] {
        write(name, extends);
        plan(&world, "--provider mine").expect(2);
    }
    let list = world.vnx(&["provider", "list"]);
    assert_eq!(list.code, 2, "a broken manifest is named: {}", list.err);
    std::fs::remove_file(folder.join("mine.yaml")).unwrap();
    let list = world.vnx(&["provider", "list", "--json"]).expect(0).json();
    let names: Vec<&str> = list["providers"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"glm") && names.contains(&"shell"), "{names:?}");
    let show = world.vnx(&["provider", "show", "deepseek"]).expect(0).out;
    assert!(show.contains("variant of") && show.contains("api.deepseek.com"), "{show}");
    world.vnx(&["provider", "show", "nobody"]).expect(2);
    let check = world.vnx(&["provider", "check", "claude"]).expect(1);
    assert!(check.out.contains("FAIL"), "{}", check.out);
    world.vnx(&["provider", "check", "shell"]).expect(0);
}
