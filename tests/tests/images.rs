//! Rules for the Dockerfiles that can be held without building an image.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const DOCKERFILES: [&str; 2] = ["coordinator/Dockerfile", "worker/Dockerfile"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What lies between two texts, at the first place where there is such a thing.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(after).map(|(found, _)| found)
}

struct Instruction {
    word: String,
    rest: String,
}

/// The instructions from one FROM to the next.
struct Stage {
    name: Option<String>,
    /// What it begins with: an image, or the name of an earlier stage.
    from: String,
    instructions: Vec<Instruction>,
}

struct Dockerfile {
    /// The ARGs before the first FROM, with their defaults.
    args: Vec<(String, String)>,
    stages: Vec<Stage>,
}

impl Dockerfile {
    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
        let mut file = Self { args: Vec::new(), stages: Vec::new() };
        for line in joined.lines().filter(|line| !line.trim().is_empty()) {
            let (word, rest) = line.trim().split_once(' ').expect("an instruction and what it is about");
            let (word, rest) = (word.to_uppercase(), rest.trim().to_owned());
            match (word.as_str(), file.stages.last_mut()) {
                ("FROM", _) => {
                    let words: Vec<_> = rest.split_whitespace().collect();
                    let name = words.get(2).map(|name| (*name).to_owned());
                    file.stages.push(Stage { name, from: words[0].to_owned(), instructions: Vec::new() });
                }
                ("ARG", None) => {
                    let (name, value) = rest.split_once('=').expect("an ARG before FROM has a default");
                    file.args.push((name.to_owned(), value.to_owned()));
                }
                (_, Some(stage)) => stage.instructions.push(Instruction { word, rest }),
                (_, None) => panic!("{word} before the first FROM"),
            }
        }
        file
    }

    fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.name.as_deref() == Some(name))
    }

    /// Stages that no other one is made from, or copied from: the images.
    fn finals(&self) -> Vec<&Stage> {
        let used = |stage: &&Stage| {
            let Some(name) = &stage.name else { return false };
            let copied = format!("--from={name} ");
            self.stages.iter().any(|other| {
                other.from == *name || other.instructions.iter().any(|i| i.rest.starts_with(&copied))
            })
        };
        self.stages.iter().filter(|stage| !used(stage)).collect()
    }

    /// The instructions of a stage after those of the stages that it is made from.
    fn history<'a>(&'a self, stage: &'a Stage) -> Vec<&'a Instruction> {
        let mut all = self.stage(&stage.from).map_or_else(Vec::new, |before| self.history(before));
        all.extend(&stage.instructions);
        all
    }

    fn last<'a>(&'a self, stage: &'a Stage, word: &str) -> Option<&'a str> {
        self.history(stage).into_iter().rfind(|i| i.word == word).map(|i| i.rest.as_str())
    }
}

/// Which of the rules for images a Dockerfile breaks.
fn broken_rules(text: &str, entrypoint: &str, ports: &[String]) -> Vec<String> {
    let file = Dockerfile::parse(text);
    let mut broken = Vec::new();
    let mut rule = |kept: bool, what: String| {
        if !kept {
            broken.push(what);
        }
    };
    for (name, image) in &file.args {
        let tag = image.rsplit_once(':').map(|(_, tag)| tag);
        rule(
            tag.is_some_and(|tag| tag != "latest"),
            format!("{name} has no tag that says a version: {image}"),
        );
    }
    for stage in &file.stages {
        let arg = stage.from.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
        let known = arg.is_some_and(|arg| file.args.iter().any(|(name, _)| name == arg));
        rule(
            known || file.stage(&stage.from).is_some(),
            format!("FROM {} is no ARG and no stage", stage.from),
        );
    }
    for stage in file.finals() {
        let name = stage.name.as_deref().unwrap_or("the last stage");
        let mut is = |word: &str, wanted: &str| {
            let found = file.last(stage, word);
            rule(found == Some(wanted), format!("{name}: {word} is {found:?} and not {wanted:?}"));
        };
        is("USER", "65532:65532");
        is("STOPSIGNAL", "SIGTERM");
        is("ENTRYPOINT", entrypoint);
        is("EXPOSE", &ports.join(" "));
        let history = file.history(stage);
        let mut unprivileged = history.iter().skip_while(|i| i.word != "USER");
        rule(!unprivileged.any(|i| i.word == "RUN"), format!("{name}: something is run after USER"));
        let base = history_base(&file, stage);
        rule(base == "${DEBIAN_IMAGE}", format!("{name} is based on {base}, compilers and all"));
        let certificates = history.iter().any(|i| i.word == "RUN" && i.rest.contains("ca-certificates"));
        rule(certificates, format!("{name} has no ca-certificates: S3 cannot be reached"));
        let labels = file.last(stage, "LABEL").unwrap_or_default();
        for label in ["title", "description", "version", "revision", "source", "created", "licenses"] {
            let label = format!("org.opencontainers.image.{label}=");
            rule(labels.contains(&label), format!("{name} has no label {label}"));
        }
        for arg in ["VERSION", "REVISION", "SOURCE", "CREATED"] {
            let declared = stage.instructions.iter().any(|i| i.word == "ARG" && i.rest == arg);
            rule(
                declared && labels.contains(&format!("\"${{{arg}}}\"")),
                format!("{name}: {arg} reaches no label"),
            );
        }
    }
    broken
}

/// The image that a stage goes back to.
fn history_base<'a>(file: &'a Dockerfile, stage: &'a Stage) -> &'a str {
    file.stage(&stage.from).map_or(&stage.from, |before| history_base(file, before))
}

/// Entry point and ports of the program of a Dockerfile, the latter from the defaults of its flags.
fn program(dockerfile: &str) -> (&'static str, Vec<String>) {
    let (entrypoint, flags) = match dockerfile {
        "coordinator/Dockerfile" => (r#"["evenkeel"]"#, "coordinator/src/cli/args.rs"),
        _ => (r#"["evenkeel-worker"]"#, "worker/src/config.rs"),
    };
    let text = read(flags);
    let port = |flag: &str| {
        let line =
            text.lines().find(|line| line.contains("#[arg(") && line.contains(flag)).expect("the flag");
        between(line, "default_value = \"0.0.0.0:", "\"").expect("a port").to_owned()
    };
    let ports = match dockerfile {
        "coordinator/Dockerfile" => [port("\"EVENKEEL_LISTEN\""), port("\"EVENKEEL_HTTP\"")],
        _ => [port("\"EVENKEEL_WORKER_LISTEN\""), port("\"EVENKEEL_WORKER_HTTP\"")],
    };
    (entrypoint, ports.into())
}

/// Whether a file is kept from builders by .dockerignore: the last rule that fits it, or a folder that it lies in, decides.
fn ignored(rules: &str, path: &str) -> bool {
    let mut ignored = false;
    for rule in rules.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (pattern, ignores) = rule.strip_prefix('!').map_or((rule, true), |pattern| (pattern, false));
        let fits = match (pattern, pattern.strip_prefix("**/")) {
            ("*", _) => true,
            (_, Some(ending)) => path.split('/').any(|part| match ending.strip_prefix('*') {
                Some(ending) => part.ends_with(ending),
                None => part == ending,
            }),
            _ => {
                assert!(!pattern.contains(['*', '?', '[']), "this test cannot read the rule {rule}");
                path == pattern || path.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('/'))
            }
        };
        if fits {
            ignored = ignores;
        }
    }
    ignored
}

/// What a Dockerfile copies out of the repository.
fn copied(file: &Dockerfile) -> Vec<String> {
    let copies = file.stages.iter().flat_map(|stage| &stage.instructions).filter(|i| i.word == "COPY");
    let local = copies.filter(|i| !i.rest.starts_with("--from="));
    local
        .flat_map(|i| {
            let mut words: Vec<_> = i.rest.split_whitespace().map(str::to_owned).collect();
            words.pop().expect("where to");
            assert!(words.iter().all(|word| !word.starts_with("--")), "COPY {} has flags", i.rest);
            words
        })
        .collect()
}

#[test]
fn the_dockerfiles_keep_the_rules() {
    for path in DOCKERFILES {
        let (entrypoint, ports) = program(path);
        assert_eq!(broken_rules(&read(path), entrypoint, &ports), [""; 0], "{path}");
    }
    let finals = |path| {
        let file = Dockerfile::parse(&read(path));
        file.finals().iter().map(|stage| stage.name.clone().unwrap_or_default()).collect::<Vec<_>>()
    };
    assert_eq!(finals("coordinator/Dockerfile"), [""]);
    // The last one is what is built when no target is named.
    assert_eq!(finals("worker/Dockerfile"), ["cuda", "cpu"]);
}

#[test]
fn a_dockerfile_that_breaks_a_rule_is_noticed() {
    let changes = [
        ("FROM ${DEBIAN_IMAGE}", "FROM debian:bookworm-slim", "is no ARG and no stage"),
        ("FROM ${DEBIAN_IMAGE}", "FROM ${RUST_IMAGE}", "compilers and all"),
        ("DEBIAN_IMAGE=debian:bookworm-slim", "DEBIAN_IMAGE=debian:latest", "no tag that says a version"),
        ("DEBIAN_IMAGE=debian:bookworm-slim", "DEBIAN_IMAGE=debian", "no tag that says a version"),
        ("USER 65532:65532", "USER evenkeel", "USER is"),
        ("STOPSIGNAL SIGTERM", "STOPSIGNAL SIGKILL", "STOPSIGNAL is"),
        ("STOPSIGNAL SIGTERM", "RUN true", "is run after USER"),
        ("ENTRYPOINT [\"", "ENTRYPOINT [\"/usr/local/bin/", "ENTRYPOINT is"),
        ("EXPOSE 7", "EXPOSE 8", "EXPOSE is"),
        ("ca-certificates ", "", "no ca-certificates"),
        ("image.revision=", "image.revised=", "no label org.opencontainers.image.revision"),
        ("ARG CREATED\n", "", "CREATED reaches no label"),
    ];
    for path in DOCKERFILES {
        let (entrypoint, ports) = program(path);
        let text = read(path);
        for (from, to, complaint) in changes {
            assert!(text.contains(from), "{path} has no {from}");
            let broken = broken_rules(&text.replace(from, to), entrypoint, &ports);
            assert!(broken.iter().any(|rule| rule.contains(complaint)), "{path}, {to:?}: {broken:?}");
        }
    }
}

#[test]
fn what_is_copied_is_there_and_reaches_the_builder() {
    let rules = read(".dockerignore");
    for path in DOCKERFILES {
        let copied = copied(&Dockerfile::parse(&read(path)));
        assert!(copied.len() >= 4, "{path} copies {copied:?}");
        for source in copied.iter().filter(|source| *source != ".") {
            assert!(root().join(source).exists(), "{path} copies {source}, which is not there");
            assert!(!ignored(&rules, source), "{path} copies {source}, which .dockerignore leaves out");
        }
        assert!(copied.iter().any(|source| source == "."), "{path} does not copy the workspace");
    }
    // What `COPY . .` has to bring: cargo reads the manifests and the sources of all members, also of those not built.
    let manifest = read("Cargo.toml");
    let members = between(&manifest, "members = [", "]").expect("the members");
    let members: Vec<_> = members.split(',').map(|member| member.trim().trim_matches('"')).collect();
    assert!(members.len() >= 6, "{members:?}");
    for member in members {
        for file in ["Cargo.toml", "src/lib.rs"] {
            let file = format!("{member}/{file}");
            assert!(
                root().join(&file).exists() && !ignored(&rules, &file),
                "{file} does not reach the builder"
            );
        }
    }
    let needed = [
        "Cargo.toml",
        "Cargo.lock",
        ".cargo/config.toml",
        "proto/build.rs",
        "worker/build.rs",
        "proto/evenkeel/v1",
    ];
    for file in needed {
        assert!(root().join(file).exists() && !ignored(&rules, file), "{file} does not reach the builder");
    }
}

#[test]
fn what_is_large_secret_or_beside_the_point_reaches_no_builder() {
    let rules = read(".dockerignore");
    let apart = [
        ".git/config",
        ".deps/libtorch/lib/libc10.so",
        "target/release/evenkeel",
        "out/x",
        ".env",
        "certs/ca.key",
    ];
    let beside = [
        "docs/cluster.md",
        "helm/README.md",
        "tests/tests/images.rs",
        "worker/Dockerfile",
        "scripts/images.sh",
    ];
    for path in apart.into_iter().chain(beside) {
        assert!(ignored(&rules, path), "{path} reaches the builder");
    }
}

#[test]
fn scripts_that_a_build_runs_are_copied_with_what_they_call() {
    for path in DOCKERFILES {
        let file = Dockerfile::parse(&read(path));
        let mut run = 0;
        for stage in &file.stages {
            let mut here = BTreeSet::new();
            for instruction in file.history(stage) {
                match instruction.word.as_str() {
                    "COPY" => here.extend(instruction.rest.split_whitespace().map(str::to_owned)),
                    "RUN" => {
                        let words = instruction.rest.split_whitespace();
                        for script in words.filter(|word| word.starts_with("scripts/")) {
                            run += 1;
                            let text = read(script);
                            let calls =
                                text.split("\"$root/").skip(1).filter_map(|call| call.split('"').next());
                            for needed in calls.filter(|call| call.starts_with("scripts/")).chain([script]) {
                                assert!(here.contains(needed), "{path}: {script} is run without {needed}");
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        assert!(run > 0, "{path} runs no script");
    }
}

#[test]
fn both_images_begin_alike_and_both_workers_are_one_program() {
    let tools = |path| {
        let text = read(path);
        let stage = between(&text, "AS tools\n", "\nFROM ").expect("a stage called tools").to_owned();
        Dockerfile::parse(&format!("FROM x AS tools\n{stage}"))
            .stages
            .remove(0)
            .instructions
            .iter()
            .map(|i| format!("{} {}", i.word, i.rest))
            .collect::<Vec<_>>()
    };
    let [coordinator, worker] = DOCKERFILES.map(tools);
    assert!(coordinator.len() >= 4, "{coordinator:?}");
    assert_eq!(coordinator, worker, "builders could not share their layers");

    let file = Dockerfile::parse(&read("worker/Dockerfile"));
    let program = "--from=build /usr/local/bin/evenkeel-worker /usr/local/bin/evenkeel-worker";
    for name in ["cpu", "cuda"] {
        let stage = file.stage(name).expect("the stage");
        assert!(stage.instructions.iter().any(|i| i.word == "COPY" && i.rest == program), "{name}");
    }
}

/// `1.95-slim` as numbers, as far as they go.
fn version(text: &str) -> Vec<u32> {
    text.split('-').next().unwrap_or_default().split('.').map_while(|part| part.parse().ok()).collect()
}

#[test]
fn base_images_are_those_of_the_lock_file_and_new_enough() {
    let lock = read("scripts/images.lock");
    let locked: Vec<(&str, &str)> = lock
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(' ').expect("NAME IMAGE"))
        .collect();
    assert_eq!(locked.len(), 2, "{locked:?}");
    for path in DOCKERFILES {
        let args = Dockerfile::parse(&read(path)).args;
        let unpinned = locked.iter().map(|(name, image)| {
            ((*name).to_owned(), image.split('@').next().unwrap_or_default().to_owned())
        });
        assert_eq!(args, unpinned.collect::<Vec<_>>(), "{path}");
    }
    for (name, image) in &locked {
        if let Some((_, digest)) = image.split_once('@') {
            let digits = digest.strip_prefix("sha256:").unwrap_or_default();
            assert!(digits.len() == 64 && digits.chars().all(|c| c.is_ascii_hexdigit()), "{name}: {digest}");
        }
    }

    let manifest = read("Cargo.toml");
    let wanted = version(between(&manifest, "rust-version = \"", "\"").expect("rust-version"));
    let rust = locked.iter().find(|(name, _)| *name == "RUST_IMAGE").expect("RUST_IMAGE").1;
    let (debian, rust) = (locked[0].1, rust.strip_prefix("rust:").expect("an image of Rust"));
    assert!(wanted.len() == 2 && version(rust) >= wanted, "Rust {rust} is older than {wanted:?}");
    // The program runs on the glibc that it was linked against.
    let release = between(debian, "debian:", "-slim").expect("a release of Debian");
    assert!(
        rust.split('@').next().is_some_and(|tag| tag.ends_with(release)),
        "{rust} is not of Debian {release}"
    );
}

#[test]
fn there_is_one_version_of_torch() {
    let version = read("scripts/libtorch.sh");
    let version = between(&version, "\nreadonly VERSION=", " ").expect("the version");
    assert!(version.split('.').count() == 3, "{version}");
    // The CUDA half takes the number from there.
    let cuda = read("scripts/libtorch-cuda.sh");
    assert!(
        cuda.contains(
            r#"version=$(sed -n 's/^readonly VERSION=\([^ ]*\).*/\1/p' "$root/scripts/libtorch.sh")"#
        )
    );
    assert!(cuda.contains("\"torch==$version\""));
    assert!(read("docs/deploy/images.md").contains(&format!("torch {version}")), "docs/deploy/images.md");
    for path in DOCKERFILES {
        assert!(!read(path).contains("torch=="), "{path} has a version of torch of its own");
    }
}
