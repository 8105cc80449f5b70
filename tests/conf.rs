//! The sample and the defaults agree; broken files get the line that helps, and exit status 2.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use slotd::config::summary::Summary;
use slotd::config::{self, Use};
use tempfile::TempDir;

const SAMPLE: &str = include_str!("../conf/slotd.toml");
/// What an example of [[external]] cannot do without.
const EXTERNAL: [&str; 5] = [
    "[[external]]",
    "path = \"/upload",
    "protocol = ",
    "domain = ",
    "secret_file = ",
];
/// Stands in every secret that these tests write; must stand in no output.
const HIDDEN: &str = "hidden-";
/// Fewer would be a sign that the folder was not found.
const BAD_FILES_MIN: usize = 24;

/// Values that are right in few places, or in none.
const ODD_VALUES: [&str; 26] = [
    "",
    "-1",
    "0",
    "1",
    "1.5",
    "inf",
    "nan",
    "99999999999999999999",
    "true",
    "1979-05-27",
    "[]",
    "{}",
    "[[]]",
    "[1]",
    "{ a = 1 }",
    r#""""#,
    r#""\u0000""#,
    r#""-1""#,
    r#""none""#,
    r#""unix:""#,
    r#"[""]"#,
    r#"["unix:/x"]"#,
    r#""0 B""#,
    r#""1 s""#,
    r#""\U0001F600""#,
    "'a",
];

/// A directory with what the configurations of these tests name.
fn scene() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, text: &str, mode: u32| {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set");
    };
    write("good.secret", "hidden-7Kq2mV9xW4\n", 0o600);
    write("external.secret", "hidden-external\n", 0o600);
    write("external-delete.secret", "hidden-external-2\n", 0o600);
    write("open.secret", "hidden-7Kq2mV9xW4\n", 0o644);
    write("weak.secret", "secret\n", 0o600);
    write("two.secret", "hidden-7Kq2mV9xW4\nhidden-8\n", 0o600);
    write("certificate.pem", "", 0o644);
    write("key.pem", "", 0o600);
    let open = dir.path().join("open");
    fs::create_dir(&open).expect("made");
    fs::set_permissions(&open, Permissions::from_mode(0o777)).expect("set");
    symlink(&open, dir.path().join("link")).expect("linked");
    symlink("nowhere", dir.path().join("dangling")).expect("linked");
    let split = dir.path().join("split");
    fs::create_dir(&split).expect("made");
    symlink(&open, split.join("files")).expect("linked");
    dir
}

fn slotd(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_slotd"))
        .args(args)
        .env_remove("CREDENTIALS_DIRECTORY")
        .output()
        .expect("slotd starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn load_text(dir: &TempDir, sample: &str) -> Result<config::Loaded, config::error::ConfigError> {
    let wanted = Use::Serving {
        secret_file: Some(dir.path().join("good.secret")),
    };
    config::parse(Path::new("conf/slotd.toml"), sample, &wanted)
}

/// The sample with its commented lines of defaults (`#name`) put into force.
fn with_defaults() -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest.to_owned(),
        _ => line.to_owned(),
    };
    SAMPLE.lines().map(|it| line(it) + "\n").collect()
}

/// The lines of options that are off by default (`##name`), with their numbers.
fn examples() -> Vec<(usize, &'static str)> {
    let example = |(n, line): (usize, &'static str)| Some((n, line.strip_prefix("##")?));
    SAMPLE.lines().enumerate().filter_map(example).collect()
}

#[test]
fn the_sample_tells_the_defaults() {
    let dir = scene();
    let meaning = |text: &str| {
        let loaded = load_text(&dir, text).unwrap_or_else(|error| panic!("{error}"));
        format!("{:#?}", loaded.config)
    };
    let minimal = "[component]\njid = \"upload.example.org\"\n\
        [http]\npublic_url = \"https://upload.example.org/\"\n";
    assert_eq!(meaning(SAMPLE), meaning(minimal));
    let uncommented = with_defaults();
    assert_eq!(meaning(&uncommented), meaning(minimal));
    let pairs = SAMPLE.lines().zip(uncommented.lines());
    assert!(30 < pairs.filter(|(before, after)| before != after).count());
}

fn is_of_external(example: &str) -> bool {
    let names = EXTERNAL.iter().chain(&["delete_secret"]);
    names.into_iter().any(|name| example.starts_with(name))
}

/// The lines of a table that is an example as a whole.
fn table_of_examples(head: &str) -> std::ops::Range<usize> {
    let is_head = |line: &str| line.strip_prefix("##") == Some(head);
    let begin = SAMPLE.lines().position(is_head).expect(head);
    let rest = SAMPLE.lines().skip(begin);
    let is_head = |line: &&str| line.starts_with('[') || line.starts_with("##[");
    let n_lines = rest.skip(1).take_while(|line| !is_head(line)).count();
    begin..begin + 1 + n_lines
}

#[test]
fn the_samples_examples_are_good() {
    let dir = scene();
    let [account, relay] = ["[account]", "[relay]"].map(table_of_examples);
    for (n, example) in examples() {
        if account.contains(&n) {
            continue;
        }
        // Tried alone, in its place; the tables and their first keys as they must go together.
        let needs: &[&str] = match example {
            "[http.tls]" | "[[external]]" | "[warm_binding]" => continue,
            // For a service manager, which is not here.
            _ if example.starts_with("delete_secret_credential") => continue,
            _ if example.starts_with("managers") => {
                &["[warm_binding]", "listen = [\"127.0.0.1:5051"]
            }
            _ if example.starts_with("path = \"/warm") || example.starts_with("listen = \"a") => {
                &["[warm_binding]", "managers", "listen = [\"127.0.0.1:5051"]
            }
            _ if example.starts_with("certificate") => &["[http.tls]", "key"],
            _ if example.starts_with("key") => &["[http.tls]", "certificate"],
            _ if is_of_external(example) => &EXTERNAL,
            _ => &[],
        };
        let is_wanted = |i: usize, line: &str| {
            let is_need = |need: &&str| line.starts_with(&format!("##{need}"));
            let is_there = relay.contains(&n) == relay.contains(&i) && !account.contains(&i);
            i == n || is_there && (relay.contains(&n) || needs.iter().any(is_need))
        };
        let is_secret = example.starts_with("secret") && !relay.contains(&n);
        let line = |(i, line): (usize, &str)| match line.strip_prefix("##") {
            Some(rest) if is_wanted(i, line) => format!("{rest}\n"),
            None if is_secret && line.starts_with("secret_file") => "\n".to_owned(),
            _ => format!("{line}\n"),
        };
        let text: String = SAMPLE.lines().enumerate().map(line).collect();
        let text = text.replace("/etc/slotd", &dir.path().to_string_lossy());
        let text = text.replace("/var/log/slotd", &dir.path().to_string_lossy());
        if let Err(error) = load_text(&dir, &text) {
            panic!("{example}: {error}");
        }
    }
}

/// It stands in place of `[component]`.
#[test]
fn the_samples_account_is_good() {
    let dir = scene();
    let account = table_of_examples("[account]");
    let component = SAMPLE.lines().position(|line| line == "[component]");
    let component = component.expect("the component")..account.start;
    for without in ["password", "insecure"] {
        let line = |(n, line): (usize, &'static str)| match line.strip_prefix("##") {
            _ if component.contains(&n) => "",
            Some(option) if account.contains(&n) && !option.starts_with(without) => option,
            _ => line,
        };
        let lines: Vec<&str> = SAMPLE.lines().enumerate().map(line).collect();
        // Of the three passwords one; without TLS the server is here.
        let text = lines.join("\n").replace("\npassword = ", "\n#");
        let text = text.replace("\npassword_credential = ", "\n#");
        let text = match without {
            "password" => text.replace("xmpp.example.org:5222", "127.0.0.1:5222"),
            _ => text,
        };
        let loaded = load_text(
            &dir,
            &text.replace("/etc/slotd", &dir.path().to_string_lossy()),
        );
        let config = loaded.unwrap_or_else(|error| panic!("{error}")).config;
        let account = config.account.as_ref().expect("an account");
        assert_eq!(account.resource.as_deref(), Some("node-1"));
        assert_eq!(account.insecure, without == "password");
        let summary = Summary(&config).to_string();
        for words in ["slotd@example.org/node-1 at ", "behind upload.example.org"] {
            assert!(summary.contains(words), "{summary}");
        }
        assert!(
            summary.contains("uploads    accounts of example.org\n"),
            "{summary}"
        );
    }
}

/// A relay needs no upload service beside it on XMPP.
#[test]
fn a_relay_may_stand_alone() {
    let dir = scene();
    let text = "[relay]\njid = \"relay.example.org\"\ntarget = \"service@example.org\"\n\
        [http]\npublic_url = \"https://upload.example.org/\"\n";
    let loaded = load_text(&dir, text).expect("good");
    assert_eq!(loaded.config.relay_host(), Some("relay.example.org"));
    assert_eq!(loaded.config.hosts().next(), None);
    let told = Summary(&loaded.config).to_string();
    let line = "  relay      relay.example.org at 127.0.0.1:5347, to service@example.org";
    assert!(told.lines().any(|it| it == line), "{told}");
    assert!(
        loaded
            .warnings
            .iter()
            .any(|it| it.contains("nobody can ask for slots"))
    );
}

/// What each table says of an unknown key, which is all keys that it knows.
#[test]
fn the_sample_has_every_option() {
    let dir = scene();
    let mut n_options = 0;
    for table in [
        "",
        "component",
        "account",
        "relay",
        "http",
        "http.tls",
        "limits",
        "quota",
        "access",
        "bans",
        "external",
        "retention",
        "keys",
        "warm_binding",
        "contact",
        "log",
    ] {
        let text = match table {
            "" => "qqqqqq = 1\n".to_owned(),
            table => format!("[{table}]\nqqqqqq = 1\n"),
        };
        let error = load_text(&dir, &text).expect_err("unknown").to_string();
        let (_, known) = error.split_once("(known here: ").expect(&error);
        for option in known.trim_end_matches(')').split(", ") {
            let is_here = |line: &str| {
                let line = line.trim_start_matches('#');
                line.starts_with(&format!("{option} = "))
                    || line == format!("[{option}]")
                    || line == format!("[[{option}]]")
                    || line == format!("[{table}.{option}]")
            };
            assert!(
                SAMPLE.lines().any(is_here),
                "{table}.{option} is not in the sample"
            );
            n_options += 1;
        }
    }
    assert!(60 < n_options, "only {n_options} options were found");
}

/// Whatever stands where, each fault names a line and a remedy, and nothing panics.
#[test]
fn every_option_takes_or_refuses_any_value() {
    let dir = scene();
    let sample = with_defaults();
    let mut n_refused = 0;
    for (n, line) in sample.lines().enumerate() {
        let is_option = !line.starts_with('#');
        let Some((name, _)) = line.split_once(" = ").filter(|_| is_option) else {
            continue;
        };
        for value in ODD_VALUES.iter() {
            let changed = |(i, line): (usize, &str)| match i == n {
                true => format!("{name} = {value}\n"),
                false => format!("{line}\n"),
            };
            let text: String = sample.lines().enumerate().map(changed).collect();
            let Err(error) = load_text(&dir, &text) else {
                continue;
            };
            n_refused += 1;
            let is_told = |fault: &config::error::Fault| {
                let is_compared = fault.problem.what.contains(" than limits.");
                let is_here = fault.line == Some(n + 1);
                (is_here || is_compared) && !fault.problem.remedy.is_empty()
            };
            assert!(
                error.faults.iter().all(is_told),
                "{name} = {value}: {error}"
            );
        }
    }
    assert!(500 < n_refused, "only {n_refused} were refused");
}

#[test]
fn the_sample_passes_the_check() {
    let dir = scene();
    let secret = dir.path().join("good.secret");
    let output = slotd(&[
        "check",
        "--config",
        concat!(env!("CARGO_MANIFEST_DIR"), "/conf/slotd.toml"),
        "--component-secret-file",
        &secret.to_string_lossy(),
    ]);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    for words in [
        "accounts of example.org",
        "sessions   5 minutes after the last byte (1 hour over HTTP alone), 10 refreshes",
    ] {
        assert!(stdout.contains(words), "{stdout}");
    }
    assert!(!(stdout + &stderr).contains(HIDDEN));
}

/// Who cannot refresh has at least the time of who can.
#[test]
fn an_upload_over_http_alone_waits_as_long_as_any() {
    let dir = scene();
    let told = |limits: &str| {
        let text = format!(
            "[component]\njid = \"upload.example.org\"\n\
             [http]\npublic_url = \"https://upload.example.org/\"\n[limits]\n{limits}\n"
        );
        let loaded = load_text(&dir, &text).unwrap_or_else(|error| panic!("{error}"));
        Summary(&loaded.config).to_string()
    };
    for (limits, words) in [
        (
            "idle_for = \"2 hours\"\nopen_sessions_max = 7",
            "sessions   2 hours after the last byte (2 hours over HTTP alone), 10 refreshes, \
             3 days at most; 7 open a requester\n",
        ),
        (
            "rufh_idle_for = \"2 hours\"\nrefreshes_max = 0",
            "sessions   5 minutes after the last byte (2 hours over HTTP alone), 0 refreshes, \
             3 days at most; 20 open a requester\n",
        ),
    ] {
        let summary = told(limits);
        assert!(summary.contains(words), "{summary}");
    }
}

#[test]
fn options_without_effect_are_told() {
    let dir = scene();
    let warnings = |http: &str| {
        let text = format!(
            "[component]\njid = \"upload.example.org\"\n\
             [http]\npublic_url = \"https://upload.example.org/\"\n{http}\n"
        );
        let loaded = load_text(&dir, &text).unwrap_or_else(|error| panic!("{error}"));
        loaded.warnings.join("\n")
    };
    let alone = warnings("proxy_forwards_1xx = true");
    assert!(
        alone.contains("http.proxy_forwards_1xx: changes nothing without http.trusted_proxies"),
        "{alone}"
    );
    let with = warnings("proxy_forwards_1xx = true\ntrusted_proxies = [\"127.0.0.1\"]");
    assert!(!with.contains("1xx"), "{with}");
    let alone = warnings("accel = \"x-sendfile\"");
    let words = "http.accel: changes nothing without http.trusted_proxies or a Unix socket";
    assert!(alone.contains(words), "{alone}");
    for proxy in [
        "trusted_proxies = [\"127.0.0.1\"]",
        "listen = [\"unix:/run/slotd/http\"]",
    ] {
        let with = warnings(&format!("accel = \"x-accel-redirect\"\n{proxy}"));
        assert!(!with.contains("accel"), "{with}");
    }
}

/// In a container the private listener is everywhere; and files beside the form may have its name.
#[test]
fn a_form_for_passwords_tells_who_may_read_them() {
    let dir = scene();
    let warnings = |admin: &str, warm: &str, rest: &str| {
        let text = format!(
            "[component]\njid = \"upload.example.org\"\n\
             [http]\npublic_url = \"https://upload.example.org/\"\n\
             [admin]\n{admin}\n[operators]\njids = [\"admin@example.org\"]\n\
             [warm_binding]\n{warm}\n\
             managers = {{ \"example.org\" = \"http://127.0.0.1:5280/http-bind\" }}\n{rest}\n"
        );
        let loaded = load_text(&dir, &text).unwrap_or_else(|error| panic!("{error}"));
        loaded.warnings.join("\n")
    };
    let open = warnings("listen = [\"0.0.0.0:5051\"]\ninsecure = true", "", "");
    assert!(
        open.contains("admin.listen: \"0.0.0.0:5051\": DANGER: with"),
        "{open}"
    );
    let near = warnings("listen = [\"[::1]:5051\", \"unix:/run/a\"]", "", "");
    assert!(!near.contains("DANGER"), "{near}");
    let system = "[[external]]\npath = \"/\"\ndomain = \"example.org\"";
    let beside = warnings("", "listen = \"http\"", system);
    let words = "warm_binding.path: no file of that name is served below \"/\" any more";
    assert!(beside.contains(words), "{beside}");
    let system = "[[external]]\npath = \"/warm/\"\ndomain = \"example.org\"";
    let private = warnings("listen = [\"127.0.0.1:5051\"]", "", system);
    assert!(!private.contains("warm_binding.path"), "{private}");
}

#[test]
fn broken_files_get_the_line_that_helps() {
    let dir = scene();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad-conf");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(BAD_FILES_MIN <= files.len());
    let wrong: Vec<String> = files
        .iter()
        .filter_map(|file| complaint(&dir, file))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n\n"));
}

/// What is not as it should be when `slotd check` reads `file`.
fn complaint(dir: &TempDir, file: &Path) -> Option<String> {
    let here = dir.path().to_string_lossy();
    let text_written = fs::read_to_string(file)
        .expect("readable")
        .replace("{DIR}", &here);
    let copy = dir.path().join(file.file_name().expect("a name"));
    fs::write(&copy, &text_written).expect("written");
    let copy = copy.to_string_lossy();
    let expected: String = text_written
        .lines()
        .map_while(|line| line.strip_prefix("# expect: "))
        .map(|line| line.replace("FILE", &copy) + "\n")
        .collect();
    let before = listing(dir.path());
    let output = slotd(&["check", "--config", &copy]);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    let name = file.display();
    if (stdout.clone() + &stderr).contains(HIDDEN) {
        return Some(format!("{name}: shows a secret"));
    }
    if before != listing(dir.path()) {
        return Some(format!("{name}: the check changed something"));
    }
    let is_right = output.status.code() == Some(2) && stderr == expected && stdout.is_empty();
    let status = output.status;
    (!is_right).then(|| format!("{name}: {status}\n got {stderr}want {expected}"))
}

fn listing(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("readable");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
}
