//! Uploads that go on over HTTP, by each dialect of the draft and by tus: a row a request.

mod support;

use support::front::{Answer, Fields, Front};
use support::site::{SIZE, TestSlot, content, path_of};

const PARTIAL: (&str, &str) = ("content-type", "application/partial-upload");
const TUS: (&str, &str) = ("tus-resumable", "1.0.0");
const TUS_TYPE: (&str, &str) = ("content-type", "application/offset+octet-stream");
const WHOLE: (&str, &str) = ("upload-complete", "?1");
const PART: (&str, &str) = ("upload-complete", "?0");

/// A site with an upload session of which nothing came yet.
struct Upload {
    front: Front,
    slot: TestSlot,
    path: String,
}

impl Upload {
    async fn new() -> Self {
        let front = Front::new();
        let (slot, path) = front.site.session().await;
        Self { front, slot, path }
    }

    /// The same with its first `offset` bytes.
    async fn at(offset: usize) -> Self {
        let upload = Self::new().await;
        let answer = upload.append(0, &content(SIZE)[..offset], &[PART]).await;
        assert_eq!(answer.status, 204);
        upload
    }

    async fn ask(&self, method: &str, fields: Fields<'_>, body: &[u8]) -> Answer {
        self.front.ask(method, &self.path, fields, body).await
    }

    /// A PATCH of the draft.
    async fn append(&self, offset: usize, body: &[u8], fields: Fields<'_>) -> Answer {
        let (offset, length) = (offset.to_string(), body.len().to_string());
        let mut all = vec![
            PARTIAL,
            ("upload-offset", &*offset),
            ("content-length", &*length),
        ];
        all.retain(|(name, _)| fields.iter().all(|(other, _)| other != name));
        all.extend(fields);
        self.ask("PATCH", &all, body).await
    }

    /// Where the upload goes on, as HEAD says.
    async fn offset(&self) -> u64 {
        let answer = self.ask("HEAD", &[], b"").await;
        assert_eq!(answer.status, 204);
        answer.header("upload-offset").parse().expect("digits")
    }

    /// It can be completed from where it is, and the file is right.
    async fn check_usable(&self) {
        let at = usize::try_from(self.offset().await).expect("small");
        let answer = self.append(at, &content(SIZE)[at..], &[WHOLE]).await;
        assert_eq!(answer.status, 201);
        self.check_file().await;
    }

    async fn check_file(&self) {
        let get = self.front.ask("GET", &self.slot.path, &[], b"").await;
        assert_eq!(
            (get.status.as_u16(), &get.body[..]),
            (200, &content(SIZE)[..])
        );
    }
}

#[tokio::test]
async fn an_upload_goes_on_where_it_was_broken_off() {
    let upload = Upload::at(400).await;
    assert_eq!(upload.offset().await, 400);
    upload.check_usable().await;
    let again = upload.append(SIZE, b"", &[WHOLE]).await;
    assert_eq!(
        (again.status.as_u16(), again.header("upload-complete")),
        (201, "?1")
    );
}

#[tokio::test]
async fn a_put_begins_it() {
    let front = Front::new();
    let slot = front.site.slot().await;
    let fields = [
        ("content-length", "400"),
        ("upload-draft-interop-version", "8"),
        PART,
    ];
    let answer = front
        .ask("PUT", &slot.put_path(), &fields, &content(SIZE)[..400])
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("upload-complete")),
        (201, "?0")
    );
    let path = path_of(answer.header("location"));
    let upload = Upload { front, slot, path };
    assert_eq!(upload.offset().await, 400);
    upload.check_usable().await;
}

#[tokio::test]
async fn tus_goes_on_as_well() {
    let upload = Upload::new().await;
    let head = upload.ask("HEAD", &[TUS], b"").await;
    assert_eq!(
        (head.status.as_u16(), head.header("upload-offset")),
        (200, "0")
    );
    let fields = [
        TUS,
        TUS_TYPE,
        ("upload-offset", "0"),
        ("content-length", "400"),
    ];
    let answer = upload.ask("PATCH", &fields, &content(SIZE)[..400]).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("upload-offset")),
        (204, "400")
    );
    let fields = [
        TUS,
        TUS_TYPE,
        ("upload-offset", "400"),
        ("content-length", "600"),
    ];
    let answer = upload.ask("PATCH", &fields, &content(SIZE)[400..]).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("upload-offset")),
        (204, "1000")
    );
    upload.check_file().await;
}

#[tokio::test]
async fn an_upload_is_given_up() {
    for fields in [&[][..], &[TUS]] {
        let upload = Upload::at(400).await;
        assert_eq!(upload.ask("DELETE", fields, b"").await.status, 204);
        for method in ["HEAD", "DELETE"] {
            assert_eq!(upload.ask(method, fields, b"").await.status, 410);
        }
        assert!(upload.front.site.trace(&upload.slot).await.1.is_empty());
    }
}
