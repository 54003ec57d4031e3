//! An RPC endpoint that stops seeing new blocks: it passes everything on until it is frozen, and
//! from then on repeats the answers that it gave before.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use parking_lot::Mutex;
use serde_json::Value;

pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    http: reqwest::Client,
    frozen: AtomicBool,
    replayed: AtomicU64,
    answers: Mutex<HashMap<String, Value>>,
}

impl Proxy {
    pub async fn start(upstream: String) -> Proxy {
        let shared = Arc::new(Shared {
            upstream,
            http: reqwest::Client::new(),
            frozen: AtomicBool::new(false),
            replayed: AtomicU64::new(0),
            answers: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port");
        let addr = listener.local_addr().expect("addr");
        let router = Router::new().route("/", post(answer)).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Proxy { addr, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn freeze(&self) {
        self.shared.frozen.store(true, Ordering::SeqCst);
    }

    pub fn replayed(&self) -> u64 {
        self.shared.replayed.load(Ordering::SeqCst)
    }
}

async fn answer(State(shared): State<Arc<Shared>>, body: Bytes) -> axum::Json<Value> {
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    let question = format!("{} {}", request["method"], request["params"]);
    if shared.frozen.load(Ordering::SeqCst) {
        let known = shared.answers.lock().get(&question).cloned();
        if let Some(mut answer) = known {
            shared.replayed.fetch_add(1, Ordering::SeqCst);
            answer["id"] = request["id"].clone();
            return axum::Json(answer);
        }
    }
    let response = shared.http.post(&shared.upstream).json(&request).send().await.expect("upstream");
    let answer: Value = response.json().await.expect("JSON");
    shared.answers.lock().insert(question, answer.clone());
    axum::Json(answer)
}
