//! The status page over a service: what it tells, how often it is drawn, and what that costs.

mod support;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use slotd::admin::router;
use slotd::core::command::operation::Operation;
use slotd::core::event::Event;
use slotd::core::refusal::Refusal;
use support::faulty::{Fault, Plan, faulty_service};
use support::front::Front;
use support::rows::{jid, row, take};
use support::site::{SIZE, Site, content};
use support::world::{START, bench, settings};
use tower::ServiceExt as _;

/// The page as it is answered, without its head.
async fn page(router: &Router) -> String {
    let request = Request::get("/").body(Body::empty()).expect("a request");
    let answer = router.clone().oneshot(request).await.expect("infallible");
    assert_eq!(answer.status(), 200);
    let body = answer.into_body().collect().await.expect("a whole body");
    let page = String::from_utf8(body.to_bytes().to_vec()).expect("UTF-8");
    let (_, main) = page.split_once("<main>").expect("a main part");
    main.to_owned()
}

/// What a picture sums up to: `hour`'s or `day`'s first, second, third and fourth.
fn sums(page: &str, period: &str) -> Vec<String> {
    let (_, section) = page
        .split_once(&format!("<section id=\"{period}\""))
        .expect("it");
    let (section, _) = section.split_once("</section>").expect("its end");
    let sums = section.split("<span class=\"sum\">").skip(1);
    let text = |rest: &str| rest.split('<').next().unwrap_or_default().to_owned();
    sums.map(text).collect()
}

#[tokio::test]
async fn what_happens_is_counted_and_outlasts_a_restart() {
    let front = Front::over(Site::new());
    let service = &front.site.0.service;
    service.recent().begin();
    service.set_listeners(vec![service.recent().clone()]);
    for _ in 0..2 {
        let slot = front.site.slot().await;
        assert_eq!(front.put(&slot, &content(SIZE)).await.status, 201);
    }
    let romeo = jid("romeo@example.org");
    for (operation, is_operator) in [
        (Operation::Drain, true),
        (Operation::Overview, true),
        (Operation::Purge(romeo.clone()), false),
    ] {
        service.tell(Event::CommandRun {
            by: &romeo,
            is_operator,
            operation: &operation,
            outcome: Err(&Refusal::Broken),
        });
    }
    service.tell(Event::RequestRefused {
        refusal: &Refusal::UnknownFile,
    });
    let first = page(&router(service.clone())).await;
    for period in ["hour", "day"] {
        let bytes = bytesize::ByteSize::b(2 * SIZE as u64).display().iec();
        assert_eq!(sums(&first, period), ["2", &bytes.to_string(), "0", "1"]);
    }
    // What an operator did, and neither what they looked at nor what others did.
    assert!(first.contains("<bdi class=\"what\">drain</bdi> <span class=\"failed\">not done"));
    assert!(!first.contains("overview") && !first.contains(">purge"));

    let kept = service.recent().take_changed().expect("something happened");
    assert_eq!(service.recent().take_changed(), None);
    let other = bench(settings()).service;
    other.recent().restore(kept);
    let second = page(&router(other)).await;
    assert_eq!(sums(&second, "day"), sums(&first, "day"));
    assert!(second.contains("<bdi class=\"what\">drain</bdi>"));
}

#[tokio::test(start_paused = true)]
async fn it_is_drawn_once_a_second_for_everybody() {
    let bench = bench(settings());
    let router = router(bench.service.clone());
    let first = page(&router).await;
    bench.world.pass(5);
    assert_eq!(page(&router).await, first);
    tokio::time::advance(Duration::from_secs(1)).await;
    let second = page(&router).await;
    assert!(second.contains("2026-01-02 03:04:10 UTC"), "{second}");
    assert_ne!(second, first);
}

/// How many calls of the stores a page costs among `n_rows` uploads that have begun.
async fn cost(n_rows: u128) -> u64 {
    let bench = bench(settings());
    for id in 0..n_rows {
        let row = row(id, "romeo@example.org", 10, START);
        let begun = row
            .clone()
            .begin(&row.put_claims(), START)
            .expect("admitted");
        let kept =
            bench
                .stores
                .sessions
                .admit(row.owner.clone(), support::rows::hour(), take(begun));
        kept.await.expect("kept");
    }
    let plan = Plan::new();
    let service = faulty_service(&bench, &plan);
    let page = page(&router(service)).await;
    assert_eq!(
        page.matches("<li class=\"broken\">").count() as u128,
        n_rows.min(30)
    );
    assert_eq!(page.contains("There may be others"), 30 < n_rows);
    plan.n_calls()
}

#[tokio::test]
async fn it_costs_the_same_among_many() {
    let (few, many, more) = (cost(1).await, cost(250).await, cost(2000).await);
    assert!(few < 20, "{few}");
    assert_eq!(many, more);
    assert_eq!(many - few, 199);
}

#[tokio::test]
async fn it_is_there_when_the_stores_are_not() {
    let bench = bench(settings());
    let plan = Plan::new();
    let service = faulty_service(&bench, &plan);
    service.streams().expect("upload.example.org", 1);
    plan.fail(0, u64::MAX, Fault::Before);
    let page = page(&router(Arc::clone(&service))).await;
    for words in [
        "Something is not well",
        "The store does not say; see Health below.",
        "The store does not say what it holds; see Health.",
        "fails; the log says why",
        "no stream to the XMPP server",
    ] {
        assert!(page.contains(words), "{words}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_no_store_for_long() {
    let bench = bench(settings());
    let plan = Plan::new();
    let service = faulty_service(&bench, &plan);
    let router = router(service);
    assert!(page(&router).await.contains("All is well"));
    // They were well a moment ago, and do not answer now.
    plan.fail(0, u64::MAX, Fault::Never);
    tokio::time::advance(Duration::from_secs(1)).await;
    let silent = "The store does not say; see Health below.";
    let first = page(&router).await;
    assert!(first.contains(silent) && first.contains("Something is not well"));
    // Then it is known, and nobody asks them more.
    tokio::time::advance(Duration::from_secs(1)).await;
    let n_calls = plan.n_calls();
    let second = page(&router).await;
    assert!(second.contains(silent) && second.contains("does not answer"));
    assert!(plan.n_calls() <= n_calls + 1);
}
