//! `slotd import`: directories as other servers leave them, odd things in them, and what a kill in
//! the middle leaves.

mod support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use slotd::config::Durability;
use slotd::core::external::{ExternalPath, SharedSecret, System, UsedPath};
use slotd::core::policy::Bucket;
use slotd::core::session::{State, UploadSession};
use slotd::core::slot::SlotId;
use slotd::service::audit::{Depth, Options, audit};
use slotd::service::import::{Bar, Foreign, Import, Standing, Taken};
use slotd::store::memory::{MemoryFiles, MemorySessions};
use slotd::store::{self, Body, BodyError, Mend, Stores};
use support::rows;
use tempfile::TempDir;

const UUIDS: [&str; 2] = [
    "a1b2c3d4-0000-4000-8000-0123456789ab",
    "a1b2c3d4-0000-4000-8000-0123456789ac",
];
const ACCOUNT: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";
const DAY: Duration = Duration::from_secs(86_400);

/// A slotd that is not running, and another server's directory.
struct Site {
    dir: TempDir,
}

/// The id of what is at a path below "/upload/".
fn id(path: &str) -> SlotId {
    let system = System {
        prefix: "/upload/".to_owned(),
        formats: Vec::new(),
        secret: SharedSecret::new(String::new()),
        delete_secret: None,
        domain: "example.org".parse().expect("a domain"),
    };
    system.id_of(&ExternalPath::parse(path).expect("a path"))
}

impl Site {
    fn new() -> Self {
        let external = "[[external]]\npath = \"/upload/\"\ndomain = \"example.org\"\n";
        Self::with(external)
    }

    fn with(more: &str) -> Self {
        let dir = TempDir::new().expect("a directory");
        let data_dir = dir.path().join("data");
        let text = format!(
            "data_dir = {data_dir:?}\n[http]\npublic_url = \"http://127.0.0.1:5050/\"\n\
            [retention]\nkeep_for = \"30 days\"\n{more}"
        );
        fs::write(dir.path().join("slotd.toml"), text).expect("written");
        fs::create_dir(dir.path().join("old")).expect("made");
        Self { dir }
    }

    fn old(&self) -> PathBuf {
        self.dir.path().join("old")
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A file of the other server, uploaded so long ago.
    fn put(&self, path: impl AsRef<Path>, content: &[u8], age: Duration) {
        let path = self.old().join(path);
        fs::create_dir_all(path.parent().expect("one above")).expect("made");
        fs::write(&path, content).expect("written");
        let file = File::options().append(true).open(&path).expect("opened");
        file.set_modified(SystemTime::now() - age).expect("set");
    }

    fn command(&self, command: &str, words: &[&str]) -> Command {
        let mut slotd = Command::new(env!("CARGO_BIN_EXE_slotd"));
        slotd.arg(command);
        if command == "import" {
            slotd.arg(self.old());
        }
        slotd.args(words).arg("--config");
        slotd.arg(self.dir.path().join("slotd.toml"));
        slotd.stdin(Stdio::null());
        slotd
    }

    fn run(&self, command: &str, words: &[&str]) -> Told {
        Told::of(self.command(command, words).output().expect("it starts"))
    }

    fn import(&self, words: &[&str]) -> Told {
        self.run("import", words)
    }

    #[track_caller]
    fn assert_clean(&self, words: &[&str]) {
        let audit = self.run("audit", words);
        assert_eq!(audit.status, 0, "{audit:?}");
    }

    fn stores(&self) -> Stores {
        store::open(&self.data(), Durability::Full).expect("opened")
    }

    /// What is here of a path, if its file is: the row and the bytes.
    fn find(&self, path: &str) -> Option<(UploadSession, Vec<u8>)> {
        let runtime = tokio::runtime::Runtime::new().expect("threads");
        runtime.block_on(async {
            let (stores, id) = (self.stores(), id(path));
            let row = stores.sessions.get(id).await.expect("read")?;
            matches!(row.state, State::Complete { .. }).then_some(())?;
            let content = stores.files.open(id, 0..row.file.size_bytes).await;
            let mut body = content.expect("opened").into_body();
            let mut bytes = Vec::new();
            while let Some(piece) = body.next().await {
                bytes.extend_from_slice(&piece.expect("read"));
            }
            Some((row, bytes))
        })
    }

    /// Complete files in the data directory.
    fn n_files(&self) -> usize {
        let Ok(fans) = fs::read_dir(self.data().join("files")) else {
            return 0;
        };
        let count = |fan: PathBuf| fs::read_dir(fan).map_or(0, Iterator::count);
        fans.map(|fan| count(fan.expect("listed").path())).sum()
    }
}

#[derive(Debug)]
struct Told {
    status: i32,
    table: String,
    lines: String,
}

impl Told {
    fn of(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            table: String::from_utf8_lossy(&output.stdout).into_owned(),
            lines: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The files in the table's line `what`.
    #[track_caller]
    fn count(&self, what: &str) -> u64 {
        let line = self.table.lines().find(|line| line.ends_with(what));
        let line = line.unwrap_or_else(|| panic!("no line {what:?}: {self:?}"));
        let first = line.split_whitespace().next().expect("a count");
        first.parse().expect("a number")
    }

    /// Taken, there already, past their time, refused.
    #[track_caller]
    fn counts(&self) -> [u64; 4] {
        let taken = match self.table.contains("to be taken") {
            true => "to be taken",
            false => "  taken",
        };
        [taken, "there already", "past their time", "refused"].map(|what| self.count(what))
    }
}

#[test]
fn files_at_their_paths_are_taken_over() {
    let site = Site::new();
    let large = vec![7; (1 << 20) + 1];
    let files: [(&str, &[u8], &str); 4] = [
        ("a photo.jpg", b"one", "image/jpeg"),
        ("a%20photo.jpg", b"other", "image/jpeg"),
        ("film.mp4", &large, "video/mp4"),
        ("none", b"", "application/octet-stream"),
    ];
    for (name, content, _) in files {
        site.put(format!("{}/{name}", UUIDS[0]), content, DAY);
    }
    site.put(format!("{}/old.txt", UUIDS[1]), b"long ago", 31 * DAY);

    let dry = site.import(&["--dry-run"]);
    assert!(dry.lines.contains("the service makes it"), "{dry:?}");
    let told = site.import(&[]);
    assert_eq!((told.status, told.counts()), (0, [4, 0, 1, 0]), "{told:?}");
    assert!(
        told.lines
            .contains("files of prosody-filer, with links below /upload/")
    );
    for (name, content, content_type) in files {
        let path = format!("{}/{name}", UUIDS[0]);
        let (row, bytes) = site.find(&path).expect("it is here");
        assert!(bytes == content, "{path}");
        assert_eq!(row.file.name.as_str(), name);
        assert_eq!(row.file.content_type.as_str(), content_type);
        assert_eq!(row.owner.as_str(), "example.org");
        let modified = fs::metadata(site.old().join(&path)).expect("there").mtime() as u64;
        assert_eq!(row.created_at.0, modified);
        let keep_until = row.keep_until.expect("not for ever").0;
        assert_eq!(keep_until, modified + 30 * DAY.as_secs());
    }
    assert!(site.find(&format!("{}/old.txt", UUIDS[1])).is_none());
    site.assert_clean(&["--deep"]);

    // More than shall be kept: the sweep would take it away again.
    let conf = site.dir.path().join("slotd.toml");
    let text = fs::read_to_string(&conf).expect("read");
    let text = text.replace("keep_for", "total_max = \"1 MiB\"\nkeep_for");
    let text = text + "[limits]\nmax_file_size = \"1 MiB\"\n";
    fs::write(&conf, text).expect("written");
    let dry = site.import(&["--dry-run"]);
    assert_eq!((dry.status, dry.counts()), (0, [0, 4, 1, 0]), "{dry:?}");
    assert!(dry.lines.contains("retention.total_max"), "{dry:?}");

    let told = site.import(&["--json"]);
    let json: serde_json::Value = serde_json::from_str(&told.table).expect("JSON");
    let here = (&json["taken"]["files"], &json["here"]["files"]);
    assert_eq!(here, (&0.into(), &4.into()), "{told:?}");
}

/// An item as Prosody's mod_storage_internal writes it.
fn item(slot: &str, name: &str, size_bytes: usize, when: u64) -> String {
    format!(
        "item({{\n\t[\"attr\"] = {{\n\t\t[\"filename\"] = \"{name}\";\n\
        \t\t[\"size\"] = \"{size_bytes}\";\n\t\t[\"content-type\"] = \"text/plain\";\n\
        \t\t[\"xmlns\"] = \"urn:xmpp:http:upload:0\";\n\t}};\n\t[\"__array\"] = {{}};\n\
        \t[\"key\"] = \"{slot}\";\n\t[\"name\"] = \"request\";\n\t[\"when\"] = {when};\n\
        \t[\"with\"] = \"romeo@example.net\";\n}});\n"
    )
}

#[test]
fn a_file_share_is_taken_over_as_its_archive_says() {
    let site = Site::new();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.expect("after 1970").as_secs();
    let (day, month) = (now - DAY.as_secs(), now - 31 * DAY.as_secs());
    let list = [
        item("oB2-_dyzNfBCW1ux", "na\\195\\175ve.bin", 5, day),
        item("past", "b", 1, month),
        item("unused", "c", 1, day),
        item("short", "d", 9, day),
        "item(os.exit());\n".to_owned(),
    ];
    fs::write(site.old().join("uploads.list"), list.concat()).expect("written");
    let age = Duration::ZERO;
    site.put("http_file_share/oB2%2d%5fdyzNfBCW1ux.bin", b"bytes", age);
    site.put("http_file_share/past.bin", b"1", age);
    site.put("http_file_share/short.bin", b"1", age);
    site.put("http_file_share/unused.bin~", b"1", age);

    let told = site.import(&[]);
    assert_eq!((told.status, told.counts()), (1, [1, 0, 1, 2]), "{told:?}");
    assert_eq!(told.count("slots without a file"), 1);
    assert!(
        told.lines
            .contains("refused: short/d: has 1 bytes, and should have 9")
    );
    assert!(
        told.lines.contains("refused: uploads.list, line "),
        "{told:?}"
    );
    let (row, bytes) = site
        .find("oB2-_dyzNfBCW1ux/na\u{ef}ve.bin")
        .expect("it is here");
    assert_eq!(bytes, b"bytes");
    assert_eq!(
        (row.owner.as_str(), row.created_at.0),
        ("romeo@example.net", day)
    );
    assert_eq!(row.file.content_type.as_str(), "text/plain");
    site.assert_clean(&["--deep"]);
}

#[test]
fn odd_things_are_told_and_stop_nobody() {
    let site = Site::new();
    let secret = site.dir.path().join("secret");
    fs::create_dir(&secret).expect("made");
    fs::write(secret.join("a"), "1").expect("written");
    let account = site.old().join(ACCOUNT);
    site.put(format!("{ACCOUNT}/random/good.txt"), b"good", DAY);
    site.put(format!("{ACCOUNT}/random/a\nb"), b"1", DAY);
    site.put(format!("{ACCOUNT}/shallow"), b"1", DAY);
    let name = OsStr::from_bytes(b"gr\xfc\xdfe.txt");
    site.put(account.join("random").join(name), b"1", DAY);
    symlink(&secret, account.join("linked")).expect("linked");
    symlink(secret.join("a"), account.join("random/linked")).expect("linked");
    let pipe = Command::new("mkfifo")
        .arg(account.join("random/pipe"))
        .status();
    assert!(pipe.expect("mkfifo runs").success());

    let told = site.import(&[]);
    assert_eq!((told.status, told.counts()), (1, [1, 0, 0, 6]), "{told:?}");
    for part in [
        "/random/a\\nb: no link can have this path",
        "/shallow: not at ACCOUNT/RANDOM/FILE",
        "its name is not UTF-8",
        "/linked: a symbolic link, which is not followed",
        "/random/linked: a symbolic link, which is not followed",
        "/random/pipe: neither a file nor a directory",
    ] {
        assert!(told.lines.contains(part), "{part}: {told:?}");
    }
    let good = site.find(&format!("{ACCOUNT}/random/good.txt"));
    let (row, _) = good.expect("it is here");
    assert_eq!(row.owner.as_str(), format!("{ACCOUNT}@example.org"));
    site.assert_clean(&["--deep"]);
}

#[test]
fn what_is_here_is_never_replaced() {
    let site = Site::new();
    let paths = UUIDS.map(|uuid| format!("{uuid}/a.txt"));
    for path in &paths {
        site.put(path, b"first", DAY);
    }
    assert_eq!(site.import(&[]).counts(), [2, 0, 0, 0]);
    site.put(&paths[0], b"other bytes", DAY);
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let (stores, id) = (site.stores(), id(&paths[1]));
        stores.files.remove(id).await.expect("removed");
        stores.sessions.remove(id).await.expect("removed");
    });
    let told = site.import(&[]);
    assert_eq!((told.status, told.counts()), (1, [0, 0, 0, 2]), "{told:?}");
    assert!(
        told.lines.contains("a.txt: another file is under its path"),
        "{told:?}"
    );
    assert!(
        told.lines.contains("a.txt: its path was used before"),
        "{told:?}"
    );
    assert_eq!(site.find(&paths[0]).expect("it is here").1, b"first");
    assert!(site.find(&paths[1]).is_none());
    site.assert_clean(&["--deep"]);
}

#[test]
fn a_dry_run_looks_beside_a_running_service() {
    let site = Site::new();
    site.put(format!("{}/a.txt", UUIDS[0]), b"1", DAY);
    site.assert_made();
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let _guard = runtime.enter();
    let stores = site.stores();
    let told = site.import(&["--dry-run"]);
    assert_eq!((told.status, told.counts()), (0, [1, 0, 0, 0]), "{told:?}");
    assert_eq!(site.n_files(), 0);
    let told = site.import(&[]);
    assert_eq!(told.status, 1, "{told:?}");
    assert!(told.lines.contains("in use by another process"), "{told:?}");
    drop(stores);
    assert_eq!(site.import(&[]).counts(), [1, 0, 0, 0]);
}

impl Site {
    /// Makes the stores, as a first start does.
    fn assert_made(&self) {
        let runtime = tokio::runtime::Runtime::new().expect("threads");
        let _guard = runtime.enter();
        drop(self.stores());
    }
}

#[test]
fn a_kill_at_any_point_leaves_what_the_next_run_goes_on_with() {
    const FILES: u64 = 600;
    let site = Site::new();
    let content = |n: u64| n.to_be_bytes().repeat(100 + n as usize);
    let path = |n: u64| format!("{}/{n}.bin", UUIDS[n as usize % 2]);
    for n in 0..FILES {
        site.put(path(n), &content(n), DAY);
    }
    for n in 0..3 {
        site.put(format!("{}/large-{n}", UUIDS[0]), &vec![n; 3 << 20], DAY);
    }
    let (all, mut n_kills) = (FILES + 3, 0);
    for kill_at in [1, 100, 250, 400] {
        let mut import = self_killed(&site, kill_at);
        n_kills += u32::from(!import.wait().expect("it ended").success());
        site.assert_clean(&[]);
    }
    assert!(0 < n_kills, "each ended before it could be killed");
    let told = site.import(&[]);
    let [taken, here, over, refused] = told.counts();
    assert_eq!(
        (told.status, taken + here, over, refused),
        (0, all, 0, 0),
        "{told:?}"
    );
    assert!(0 < here, "{told:?}");
    let told = site.import(&[]);
    assert_eq!(told.counts(), [0, all, 0, 0], "{told:?}");
    for n in [0, 1, 99, 100, 101, 251, 401, FILES - 1] {
        assert!(
            site.find(&path(n)).expect("it is here").1 == content(n),
            "{n}"
        );
    }
    assert_eq!(site.n_files() as u64, all);
    site.assert_clean(&["--deep"]);
}

/// An import that was killed once so many files were there.
fn self_killed(site: &Site, kill_at: usize) -> std::process::Child {
    let mut import = site.command("import", &[]);
    let import = import.stdout(Stdio::null()).stderr(Stdio::null());
    let mut import = import.spawn().expect("it starts");
    while site.n_files() < kill_at && import.try_wait().expect("asked").is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    // It may have ended by then.
    drop(import.kill());
    import
}

/// A large file of another server, and bodies of it.
fn foreign(id: u128, size_bytes: u64) -> Foreign {
    Foreign {
        id: SlotId(id),
        owner: rows::jid("example.org"),
        file: rows::row(id, "example.org", size_bytes, rows::NOW).file,
        uploaded_at: rows::NOW,
    }
}

fn body(pieces: Vec<Result<Bytes, BodyError>>) -> Body {
    stream::iter(pieces).boxed()
}

const LARGE: u64 = 2 << 20;

/// Half of the large file.
fn half() -> Bytes {
    vec![7; LARGE as usize / 2].into()
}

#[tokio::test]
async fn what_broke_off_is_taken_by_the_next_import() {
    let dir = TempDir::new().expect("a directory");
    let on_disk = store::open(&dir.path().join("data"), Durability::Full);
    let in_memory = Stores {
        sessions: Arc::new(MemorySessions::default()),
        files: Arc::new(MemoryFiles::default()),
    };
    for stores in [on_disk.expect("opened"), in_memory] {
        let import = Import::new(stores.clone(), rows::lifetimes(), rows::later(60));
        let large = foreign(7, LARGE);
        for broken in [vec![Ok(half()), Err(BodyError)], vec![Ok(half())]] {
            let taken = import.take(&large, body(broken)).await.expect("no trouble");
            assert_eq!(taken, Taken::Short);
            assert_eq!(stores.files.find(large.id).await.expect("found"), []);
        }
        // As a crash leaves it that comes before the row is complete.
        let left = Bytes::from_static(b"left");
        stores.files.keep(large.id, left).await.expect("kept");
        let standing = import.standing(&large).await.expect("no trouble");
        assert_eq!(standing, Standing::New);
        let whole = || body(vec![Ok(half()), Ok(half())]);
        let taken = import.take(&large, whole()).await.expect("no trouble");
        assert_eq!(taken, Taken::Yes);
        let taken = import.take(&large, whole()).await.expect("no trouble");
        assert_eq!(taken, Taken::No(Standing::Here));
        let options = Options {
            mend: Mend::No,
            depth: Depth::Digests,
        };
        let report = audit(&stores, options).await.expect("no trouble");
        assert!(report.is_clean() && report.n_files == 1, "{report:?}");
    }
}

#[tokio::test]
async fn two_files_of_one_path_are_one_too_many() {
    let stores = Stores {
        sessions: Arc::new(MemorySessions::default()),
        files: Arc::new(MemoryFiles::default()),
    };
    let import = Import::new(stores.clone(), rows::lifetimes(), rows::later(60));
    let large = foreign(7, LARGE);
    let begun = body(vec![Ok(half())]).chain(stream::pending()).boxed();
    let again = async {
        // The first one has begun.
        while stores.sessions.get(large.id).await.expect("read").is_none() {
            tokio::task::yield_now().await;
        }
        import.take(&large, body(Vec::new())).await
    };
    tokio::select! {
        taken = import.take(&large, begun) => panic!("{taken:?}"),
        taken = again => {
            let used = Standing::Barred(Bar::Used);
            assert_eq!(taken.expect("no trouble"), Taken::No(used));
        }
    }
    // An upload by whoever has a token is left alone.
    let upload = rows::row(8, "example.org", LARGE, rows::NOW);
    let path = UsedPath {
        id: upload.id,
        forget_at: None,
    };
    let (owner, since) = (upload.owner.clone(), Bucket::of(rows::NOW));
    let decide = Box::new(move |_: &_| Ok(upload.clone()));
    let admitted = stores.sessions.admit_path(path, owner, since, decide);
    admitted.await.expect("admitted");
    let taken = import.take(&foreign(8, LARGE), body(Vec::new())).await;
    let upload = Standing::Barred(Bar::Upload);
    assert_eq!(taken.expect("no trouble"), Taken::No(upload));
}

#[test]
fn what_is_unclear_is_asked_for() {
    let site = Site::new();
    let told = site.import(&[]);
    assert!(
        told.status == 1 && told.lines.contains("is empty"),
        "{told:?}"
    );
    site.put("photos/a.jpg", b"1", DAY);
    let told = site.import(&[]);
    assert!(
        told.status == 1 && told.lines.contains("--from"),
        "{told:?}"
    );
    assert_eq!(
        site.import(&["--from", "prosody-filer"]).counts(),
        [1, 0, 0, 0]
    );
    let told = site.import(&["--from", "mod_http_file_share"]);
    assert!(
        told.status == 1 && told.lines.contains("prosody-migrator"),
        "{told:?}"
    );

    let told = site.run("check", &[]);
    assert!(
        told.table.contains("external   /upload/ without tokens"),
        "{told:?}"
    );
    let of = |path: &str| format!("[[external]]\npath = {path:?}\ndomain = \"example.org\"\n");
    for (more, words, part) in [
        (String::new(), &[][..], "has no [[external]]"),
        (of("/a/") + &of("/b/"), &[], "--under"),
        (of("/a/"), &["--under", "/b/"], "no [[external]] with path"),
    ] {
        let told = Site::with(&more).import(words);
        assert!(told.status == 2 && told.lines.contains(part), "{told:?}");
    }
    let site = Site::with(&(of("/a/") + &of("/b/")));
    site.put(format!("{}/a.txt", UUIDS[0]), b"1", DAY);
    assert_eq!(site.import(&["--under", "/b/"]).counts(), [1, 0, 0, 0]);
}

#[test]
fn what_root_takes_belongs_to_whom_the_data_directory_belongs_to() {
    const SOMEBODY: u32 = 12_345;
    let site = Site::new();
    if fs::metadata(site.old()).expect("there").uid() != 0 {
        // Nobody else can give files away.
        return;
    }
    let path = format!("{}/a.txt", UUIDS[0]);
    site.put(&path, b"1", DAY);
    site.put(format!("{}/large", UUIDS[0]), &vec![1; 2 << 20], DAY);
    fs::create_dir(site.data()).expect("made");
    fs::set_permissions(site.data(), fs::Permissions::from_mode(0o700)).expect("set");
    chown(site.data(), Some(SOMEBODY), Some(SOMEBODY)).expect("given");
    let told = site.import(&[]);
    assert!(
        told.status == 1 && told.lines.contains("start slotd once"),
        "{told:?}"
    );

    fs::set_permissions(site.dir.path(), fs::Permissions::from_mode(0o711)).expect("set");
    let slotd = site.dir.path().join("slotd");
    fs::copy(env!("CARGO_BIN_EXE_slotd"), &slotd).expect("copied");
    let mut first = Command::new(&slotd);
    first.args(["audit", "--repair", "--config"]);
    first.arg(site.dir.path().join("slotd.toml"));
    let first = Told::of(
        first
            .uid(SOMEBODY)
            .gid(SOMEBODY)
            .output()
            .expect("it starts"),
    );
    assert_eq!(first.status, 0, "{first:?}");
    fs::remove_file(&slotd).expect("removed");

    assert_eq!(site.import(&[]).counts(), [2, 0, 0, 0]);
    let everything = Command::new("find")
        .arg(site.data())
        .args(["-user", "root"])
        .output();
    let of_root = Told::of(everything.expect("find runs"));
    assert_eq!((of_root.status, of_root.table.as_str()), (0, ""));
}
