//! The command line: exit statuses, `slotd keygen`, and what `slotd check` warns of.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn slotd(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_slotd"))
        .args(args)
        .env_remove("CREDENTIALS_DIRECTORY")
        .output()
        .expect("slotd starts")
}

#[track_caller]
fn check_status(args: &[&str], status: i32, part: &str) {
    let output = slotd(args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{args:?}: {stderr}");
    assert!(stderr.contains(part), "{args:?}: {stderr}");
}

fn config(dir: &Path, secret: &str) -> String {
    let text = format!(
        "data_dir = \"{}/data\"\n[component]\njid = \"upload.example.org\"\n{secret}\n\
        [http]\npublic_url = \"http://127.0.0.1:5050/\"\n",
        dir.display()
    );
    let file = dir.join("slotd.toml");
    fs::write(&file, text).expect("written");
    fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("set");
    file.to_string_lossy().into_owned()
}

#[test]
fn a_wrong_command_line_is_2() {
    check_status(&[], 2, "Usage");
    check_status(&["run"], 2, "--config");
    check_status(&["serve"], 2, "unrecognized");
    check_status(&["keygen", "--rotate"], 2, "--config");
    check_status(
        &["keygen", "--rotate", "--out", "x"],
        2,
        "cannot be used with",
    );
    check_status(
        &["run", "--config", "/nonexistent/slotd.toml"],
        2,
        "cannot be read",
    );
    check_status(&["audit", "--config", "/"], 2, "cannot be read");
}

#[test]
fn a_wrong_send_is_2() {
    let dir = tempfile::tempdir().expect("a directory");
    let (full, empty) = (dir.path().join("full"), dir.path().join("empty"));
    fs::write(&full, b"1").expect("written");
    fs::write(&empty, b"").expect("written");
    let (full, empty) = (full.to_string_lossy(), empty.to_string_lossy());
    let romeo = "romeo@example.org";
    let to = ["--account", romeo, "--to", romeo];
    let rows: [(&[&str], &str); 11] = [
        (&["--account", romeo, "--to", romeo], "<FILE>"),
        (&[&full, "--to", romeo], "--account"),
        (&[&full, "--account", romeo], "--to"),
        (
            &[&full, "--account", "example.org", "--no-message"],
            "name@domain",
        ),
        (&[&full, "--account", romeo, "--to", "@@"], "invalid value"),
        (
            &[&full, "--no-message", to[0], to[1], to[2], to[3]],
            "cannot be used",
        ),
        (
            &[&full, "--server", "here", to[0], to[1], to[2], to[3]],
            "HOST:PORT",
        ),
        (
            &[&full, "--rate-max", "0", to[0], to[1], to[2], to[3]],
            "nothing is ever sent",
        ),
        (
            &["/nonexistent", to[0], to[1], to[2], to[3]],
            "No such file",
        ),
        (&[&empty, to[0], to[1], to[2], to[3]], "is empty"),
        (&[&full, to[0], to[1], to[2], to[3]], "SLOTD_PASSWORD"),
    ];
    for (words, part) in rows {
        let output = Command::new(env!("CARGO_BIN_EXE_slotd"))
            .arg("send")
            .args(words)
            .env_remove("SLOTD_PASSWORD")
            .stdin(Stdio::null())
            .output()
            .expect("slotd starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {stderr}");
        assert!(stderr.contains(part), "{words:?}: {stderr}");
    }
    let help = slotd(&["send", "--help"]);
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.contains("Exit status: 0 all is sent") && help.contains("SLOTD_PASSWORD"));
}

#[test]
fn a_file_that_is_no_text_has_a_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("slotd.toml");
    fs::write(&file, b"# one\n# tw\xff\n").expect("written");
    let file = file.to_string_lossy();
    check_status(
        &["check", "--config", &file],
        2,
        &format!("{file}:2: is not UTF-8"),
    );
    fs::write(&*file, vec![b'#'; 2 << 20]).expect("written");
    check_status(&["check", "--config", &file], 2, "larger than 1 MiB");
}

#[test]
fn keygen_writes_a_secret_that_the_check_takes() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("component.secret");
    let out = out.to_string_lossy();
    check_status(&["keygen", "--out", &out], 0, "");
    let secret = fs::read_to_string(&*out).expect("readable");
    assert_eq!(secret.trim_end().len(), 43);
    let mode = fs::metadata(&*out).expect("there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    check_status(&["keygen", "--out", &out], 1, "exists");
    assert_eq!(fs::read_to_string(&*out).expect("readable"), secret);

    let file = config(dir.path(), &format!("secret_file = \"{out}\""));
    check_status(&["check", "--config", &file], 0, "warning: http.public_url");
    assert!(!dir.path().join("data").exists(), "a check makes nothing");
}

#[test]
fn keygen_prints_a_secret_alone() {
    let (first, second) = (slotd(&["keygen"]), slotd(&["keygen"]));
    let lines = String::from_utf8(first.stdout.clone()).expect("ASCII");
    assert_eq!(lines.trim_end().len(), 43);
    let hint = String::from_utf8(first.stderr).expect("ASCII");
    assert!(hint.contains(&format!("component_secret = \"{}\"", lines.trim_end())));
    assert_ne!(first.stdout, second.stdout);
}

#[test]
fn a_secret_in_a_file_that_everybody_reads_is_warned_of() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = config(dir.path(), "secret = \"hidden-7Kq2mV9xW4\"");
    let output = slotd(&["check", "--config", &file]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr.contains(&format!("chmod 0640 {file}")), "{stderr}");
    assert!(!stderr.contains("hidden-"));
    fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("set");
    let output = slotd(&["check", "--config", &file]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("chmod"));
}

#[test]
fn a_secret_given_by_the_command_line_wins() {
    let dir = tempfile::tempdir().expect("a directory");
    let secret = dir.path().join("component.secret");
    fs::write(&secret, "hidden-7Kq2mV9xW4\n").expect("written");
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).expect("set");
    let secret = secret.to_string_lossy();
    for written in [
        "",
        "secret_file = \"/nonexistent/secret\"",
        "secret = \"changeme\"",
    ] {
        let file = config(dir.path(), written);
        let args = [
            "check",
            "--config",
            &file,
            "--component-secret-file",
            &secret,
        ];
        check_status(&args, 0, "");
    }
}

#[test]
fn a_service_takes_all_the_open_files_it_may_have() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = config(dir.path(), "");
    let text = fs::read_to_string(&file).expect("written");
    let (data_dir, _) = text.split_once("[component]").expect("the first line");
    let socket = dir.path().join("http.sock");
    let socket = socket.display();
    let http = format!("listen = [\"unix:{socket}\"]\npublic_url = \"http://127.0.0.1/\"");
    fs::write(&file, format!("{data_dir}[http]\n{http}\n")).expect("written");
    let mut service = Command::new("sh")
        .args(["-c", "ulimit -Sn 200 && exec \"$0\" run --config \"$1\""])
        .args([env!("CARGO_BIN_EXE_slotd"), &file])
        .stderr(Stdio::piped())
        .spawn()
        .expect("sh starts");
    let log = BufReader::new(service.stderr.take().expect("piped"));
    let mut lines = log.lines().map_while(Result::ok);
    let is_ready = lines.any(|line| line.contains("is ready"));
    let limits = fs::read_to_string(format!("/proc/{}/limits", service.id()));
    service.kill().expect("it runs");
    service.wait().expect("it ends");
    assert!(is_ready);
    let limits = limits.expect("Linux tells them");
    let open_files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let mut numbers = open_files.expect("listed").split_whitespace().skip(3);
    let (soft, hard) = (numbers.next(), numbers.next());
    assert_eq!(soft, hard);
    assert_ne!(soft, Some("200"));
}
