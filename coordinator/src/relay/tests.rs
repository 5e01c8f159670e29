//! Calls that are passed on to a stand-in for the leader, over a real connection.

use axum::body::Body as Answer;
use axum::extract::Request as Asked;
use evenkeel_common::runtime::tls::{Tls, incoming};
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::codegen::http::StatusCode;
use tonic::transport::Endpoint;
use tower::service_fn;

use super::*;
use crate::lookout::Known;
use crate::store::Store;

const WITHIN: Duration = Duration::from_secs(10);
const CHANGE: &str = "/evenkeel.v1.SweepService/ChangeSweep";
const READ: &str = "/evenkeel.v1.SweepService/GetSweep";

/// The way to a leader that answers with this.
async fn leader(app: Router) -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = format!("http://{}", listener.local_addr().expect("address"));
    let server = tonic::transport::Server::builder().add_routes(tonic::service::Routes::from(app));
    tokio::spawn(server.serve_with_incoming(incoming(listener, Tls::default())));
    Endpoint::from_shared(address).expect("address").connect().await.expect("connect")
}

/// The service of a coordinator that stands by and knows this way; what is answered here is `here` and the question.
fn standby(
    way: Channel,
    access: Access,
    dir: &std::path::Path,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + use<>
{
    let known = Known { leader: Some("http://a:1".to_owned()), way: Some(way), trouble: String::new() };
    let store = Store::open(&dir.to_string_lossy()).expect("store");
    let seat = Seat::new(watch::channel(None).1, store, watch::channel(known).1);
    let here = service_fn(async |request: Request<Body>| {
        let question = request.into_body().collect().await.expect("a question").to_bytes();
        let answer = [b"here ", &question[..]].concat();
        Ok::<_, Infallible>(Response::new(Body::new(Full::new(Bytes::from(answer)))))
    });
    Relaying { here, relay: Relay::new(seat, access) }
}

fn ask(path: &str, question: &'static str) -> Request<Body> {
    let mut request = Request::new(Body::new(Full::new(Bytes::from(question))));
    *request.uri_mut() = path.parse().expect("path");
    *request.method_mut() = "POST".parse().expect("method");
    request.headers_mut().insert("authorization", HeaderValue::from_static("Bearer of-somebody"));
    request
}

async fn text(answer: Response<Body>) -> String {
    String::from_utf8_lossy(&answer.into_body().collect().await.expect("an answer").to_bytes()).into_owned()
}

/// Says when it is dropped.
fn guard() -> (DropGuard, CancellationToken) {
    let token = CancellationToken::new();
    (token.clone().drop_guard(), token)
}

#[tokio::test]
async fn a_call_arrives_as_it_was_sent_and_is_passed_on_once() {
    let app = Router::new().fallback(async |asked: Asked| {
        let (head, body) = asked.into_parts();
        let header = |name: &str| head.headers[name].to_str().unwrap_or_default().to_owned();
        let seen = format!("{} {} {}", head.uri.path(), header("authorization"), header(RELAYED));
        let question = axum::body::to_bytes(body, 100).await.expect("a question");
        format!("{seen} {}", String::from_utf8_lossy(&question))
    });
    let dir = tempfile::tempdir().expect("tempdir");
    let service = standby(leader(app).await, Access::open(), dir.path());
    for path in [CHANGE, READ] {
        let answer = service.clone().oneshot(ask(path, "a question")).await.expect("never");
        assert!(answer.extensions().get::<Relayed>().is_some());
        assert_eq!(text(answer).await, format!("{path} Bearer of-somebody grpc a question"));
        let mut again = ask(path, "a question");
        again.headers_mut().insert(RELAYED, HeaderValue::from_static("grpc"));
        let answer = service.clone().oneshot(again).await.expect("never");
        assert!(answer.extensions().get::<Relayed>().is_none());
        assert_eq!(text(answer).await, "here a question");
    }
}

#[tokio::test]
async fn the_leader_hears_that_a_client_is_gone_before_and_after_the_answer_began() {
    let (tell, mut told) = mpsc::channel(4);
    let app = Router::new().fallback(move |asked: Asked| {
        let tell = tell.clone();
        async move {
            let (guard, dropped) = guard();
            tell.send(dropped).await.expect("heard");
            if asked.uri().path() == CHANGE {
                std::future::pending::<()>().await;
            }
            let chunks = futures::stream::once(async { Ok::<_, std::io::Error>("first") });
            Answer::from_stream(chunks.chain(futures::stream::pending()).map(move |chunk| {
                let _ = &guard;
                chunk
            }))
        }
    });
    let dir = tempfile::tempdir().expect("tempdir");
    let service = standby(leader(app).await, Access::open(), dir.path());
    let gone = |dropped: CancellationToken| async move {
        tokio::time::timeout(WITHIN, dropped.cancelled()).await.expect("the leader goes on");
    };
    let unanswered = tokio::spawn(service.clone().oneshot(ask(CHANGE, "")));
    let dropped = told.recv().await.expect("a call");
    assert!(!dropped.is_cancelled());
    unanswered.abort();
    gone(dropped).await;

    let mut answer = service.oneshot(ask(READ, "")).await.expect("never");
    let dropped = told.recv().await.expect("a call");
    let first = answer.body_mut().frame().await.expect("a frame").expect("a chunk");
    assert_eq!(first.into_data().expect("data"), "first");
    assert!(!dropped.is_cancelled());
    drop(answer);
    gone(dropped).await;
}

#[tokio::test]
async fn a_leader_that_dies_in_the_middle_of_an_answer_ends_it_with_a_status() {
    let dies = Arc::new(Notify::new());
    let told = dies.clone();
    let app = Router::new().fallback(move || async move {
        let end = async move {
            told.notified().await;
            Err(std::io::Error::other("dead"))
        };
        Answer::from_stream(futures::stream::once(async { Ok("first") }).chain(futures::stream::once(end)))
    });
    let dir = tempfile::tempdir().expect("tempdir");
    let service = standby(leader(app).await, Access::open(), dir.path());
    let mut answer = service.oneshot(ask(CHANGE, "")).await.expect("never");
    let first = answer.body_mut().frame().await.expect("a frame").expect("a chunk");
    assert_eq!(first.into_data().expect("data"), "first");
    dies.notify_one();
    let body = answer.into_body().collect().await.expect("no broken stream");
    let trailers = body.trailers().expect("trailers");
    assert_eq!(
        (&trailers["grpc-status"], &trailers[LEADER]),
        (&"14".parse().expect("value"), &NOBODY.parse().expect("value"))
    );
}

#[tokio::test]
async fn without_the_leader_reads_are_answered_here_and_all_else_is_refused_to_those_who_may_read() {
    let dir = tempfile::tempdir().expect("tempdir");
    let nowhere = || Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
    let open = standby(nowhere(), Access::open(), dir.path());
    let answer = open.clone().oneshot(ask(READ, "a question")).await.expect("never");
    assert_eq!(text(answer).await, "here a question");
    let refused = open.oneshot(ask(CHANGE, "a question")).await.expect("never");
    assert_eq!((refused.status(), refused.headers()["grpc-status"].as_bytes()), (StatusCode::OK, &b"14"[..]));
    assert_eq!(refused.headers()[LEADER], "http://a:1");

    let file = dir.path().join("tokens");
    std::fs::write(&file, "read reader-0123456789\n").expect("write");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("chmod");
    let guarded = standby(nowhere(), Access::from_file(&file).expect("tokens"), dir.path());
    let refused = guarded.oneshot(ask(CHANGE, "a question")).await.expect("never");
    assert_eq!(refused.headers()["grpc-status"], "16");
    assert!(!refused.headers().contains_key(LEADER), "strangers are not told who leads");
}
