//! An RPC endpoint that passes everything on until it turns bad: it stops seeing new blocks and repeats
//! the answers that it gave before, takes no more questions, answers nonsense, or does with transactions
//! what endpoints do that have dropped old ones, balance load, or are overloaded.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::DATE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use near_primitives::transaction::SignedTransaction;
use parking_lot::Mutex;
use serde_json::{Value, json};

pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

/// What becomes of a question.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Mood {
    #[default]
    Honest,
    /// Repeats old answers, where there are some.
    Frozen,
    /// Adds a billion to each height.
    Ahead,
    /// Too many questions.
    Limited,
    /// A page in HTML, as captive portals give it.
    Page,
    /// JSON of another shape.
    Nonsense,
    /// An answer that breaks off.
    Torn,
    /// Has dropped all transactions and their blocks: what was sent before it turned is too old to be
    /// sent again. That is judged before the nonce is.
    Forgetful,
    /// Asks a second backend as well, and passes on what that one says: the nonce is used.
    Twice,
    /// Shows the chain until it gets a transaction; keeps that until it is [told](Proxy::let_go) to pass it on, and
    /// answers nothing any more.
    Taking,
    /// Is behind: says the height that it had when it turned, knows no transaction, and of what was signed on a
    /// later block it says that it is too old.
    Behind,
    /// Is behind as well, and has not seen what the account was given.
    Poor,
    /// Takes no transactions.
    Deaf,
    /// Does not say how high the chain is.
    Headless,
    /// Tells the contract's parameters twice, as a start asks for them, and then no more.
    Feeless,
    /// Does not show the graph.
    Graphless,
    /// Does not show access keys: nothing can be signed.
    Keyless,
    /// Says at once that it has waited for a transaction too long.
    Hasty,
    /// An answer without an end, as fast as it is taken.
    Endless,
    /// An answer without an end, byte by byte.
    Drip,
    /// Refuses all questions about accounts: there are none.
    Empty,
    /// Says of the first transaction that it was made, and passes it on to nobody.
    Pretending,
    /// Changes answers, see [`Proxy::lie`].
    Lying,
}

/// Changes the answer to a question: its name (a view of the contract, what is asked of an account, or a
/// method of the RPC), what it asks, and the answer.
pub type Lie = Box<dyn Fn(&str, &Value, &mut Value) + Send + Sync>;

/// Changes what is shown of one channel, wherever it is shown.
pub fn shown_as(channel: Value, change: impl Fn(&mut Value) + Send + Sync + 'static) -> Lie {
    let change_in = move |records: &mut Value, id: &Value| {
        let records = records.as_array_mut().into_iter().flatten();
        records.filter(|record| record["channel"] == *id).for_each(&change);
    };
    Box::new(move |question, args, value| match question {
        "changes" => change_in(&mut value["channels"], &channel),
        "channels" => change_in(value, &channel),
        "channel" if args["channel"] == channel && !value.is_null() => {
            let mut one = json!([value.take()]);
            change_in(&mut one, &channel);
            *value = one[0].take();
        }
        _ => {}
    })
}

struct Shared {
    upstream: String,
    http: reqwest::Client,
    mood: Mutex<Mood>,
    /// Questions that were not answered honestly.
    spoiled: AtomicU64,
    answers: Mutex<HashMap<String, Value>>,
    /// Times that it has told the contract's parameters since it turned.
    told: AtomicU64,
    /// Transactions that were sent while it was honest.
    sent: Mutex<HashSet<String>>,
    /// A transaction that it has taken and not passed on.
    withheld: Mutex<Option<Value>>,
    /// The height that it has not gone beyond since it turned.
    height: AtomicU64,
    /// The last answer to a transaction.
    made: Mutex<Value>,
    lie: Mutex<Option<Lie>>,
    /// Its clock is this far behind.
    behind: Mutex<Duration>,
    /// Bytes of answers without an end.
    poured: Arc<AtomicU64>,
}

impl Proxy {
    pub async fn start(upstream: String) -> Proxy {
        let shared = Arc::new(Shared {
            upstream,
            http: reqwest::Client::new(),
            mood: Mutex::default(),
            spoiled: AtomicU64::new(0),
            answers: Mutex::default(),
            told: AtomicU64::new(0),
            sent: Mutex::default(),
            withheld: Mutex::default(),
            height: AtomicU64::new(u64::MAX),
            made: Mutex::default(),
            lie: Mutex::default(),
            behind: Mutex::default(),
            poured: Arc::default(),
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

    pub fn turn(&self, mood: Mood) {
        *self.shared.mood.lock() = mood;
        self.shared.spoiled.store(0, Ordering::SeqCst);
        self.shared.told.store(0, Ordering::SeqCst);
        self.shared.height.store(u64::MAX, Ordering::SeqCst);
    }

    /// Passes on the transaction that it withheld; true once it is on chain.
    pub async fn let_go(&self) -> bool {
        let Some(request) = self.shared.withheld.lock().clone() else { return false };
        let sent = self.shared.http.post(&self.shared.upstream).json(&request).send().await;
        let answer: Value = sent.expect("upstream").json().await.expect("JSON");
        answer.get("result").is_some()
    }

    /// Changes its answers from now on.
    pub fn lie(&self, lie: impl Fn(&str, &Value, &mut Value) + Send + Sync + 'static) {
        *self.shared.lie.lock() = Some(Box::new(lie));
        self.turn(Mood::Lying);
    }

    /// Sets its clock back.
    pub fn set_back(&self, by: Duration) {
        *self.shared.behind.lock() = by;
    }

    /// Bytes of answers without an end that it could get rid of.
    pub fn poured(&self) -> u64 {
        self.shared.poured.load(Ordering::SeqCst)
    }

    /// Questions since it turned that were not answered honestly.
    pub fn spoiled(&self) -> u64 {
        self.shared.spoiled.load(Ordering::SeqCst)
    }
}

async fn answer(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let mut response = answer_of(shared.clone(), body).await;
    let behind = *shared.behind.lock();
    if !behind.is_zero() {
        let date = httpdate::fmt_http_date(SystemTime::now() - behind);
        response.headers_mut().insert(DATE, date.parse().expect("a header"));
    }
    response
}

async fn answer_of(shared: Arc<Shared>, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    let question = format!("{} {}", request["method"], request["params"]);
    let mood = *shared.mood.lock();
    if let Some(answer) = spoil(&shared, mood, &request, &question) {
        shared.spoiled.fetch_add(1, Ordering::SeqCst);
        return answer;
    }
    let transaction = request["params"]["signed_tx_base64"].as_str().map(str::to_owned);
    if let (Some(transaction), Mood::Honest) = (&transaction, mood) {
        shared.sent.lock().insert(transaction.clone());
    }
    let response = shared.http.post(&shared.upstream).json(&request).send().await.expect("upstream");
    let mut answer: Value = response.json().await.expect("JSON");
    if transaction.is_some() {
        *shared.made.lock() = answer.clone();
    }
    if mood == Mood::Twice && transaction.is_some() {
        shared.spoiled.fetch_add(1, Ordering::SeqCst);
        return invalid(&request, json!({ "InvalidNonce": { "tx_nonce": 1, "ak_nonce": 1 } }));
    }
    if mood == Mood::Ahead && raise(&mut answer) {
        shared.spoiled.fetch_add(1, Ordering::SeqCst);
        return axum::Json(answer).into_response();
    }
    if matches!(mood, Mood::Behind | Mood::Poor) && shared.hold_back(&mut answer) {
        shared.spoiled.fetch_add(1, Ordering::SeqCst);
        return axum::Json(answer).into_response();
    }
    if mood == Mood::Lying {
        falsify(&shared, &request, &mut answer);
        return axum::Json(answer).into_response();
    }
    shared.answers.lock().insert(question, answer.clone());
    axum::Json(answer).into_response()
}

/// The answer of this mood; `None`: the honest one.
fn spoil(shared: &Shared, mood: Mood, request: &Value, question: &str) -> Option<Response> {
    Some(match mood {
        Mood::Honest | Mood::Ahead | Mood::Twice | Mood::Lying => return None,
        Mood::Taking => {
            let mut withheld = shared.withheld.lock();
            if withheld.is_none() && request["params"]["signed_tx_base64"].is_string() {
                *withheld = Some(request.clone());
            }
            if withheld.is_none() {
                return None;
            }
            (StatusCode::TOO_MANY_REQUESTS, "slow down").into_response()
        }
        Mood::Poor if request["method"] == "send_tx" => {
            let why = json!({ "signer_id": "alice.localnet", "balance": "0", "cost": "1" });
            invalid(request, json!({ "NotEnoughBalance": why }))
        }
        Mood::Behind | Mood::Poor => match request["method"].as_str() {
            Some("tx") => unknown(request),
            Some("send_tx") => invalid(request, json!("Expired")),
            _ => return None,
        },
        Mood::Pretending => {
            let transaction = request["params"]["signed_tx_base64"].as_str()?;
            if shared.spoiled.load(Ordering::SeqCst) > 0 {
                return None;
            }
            let bytes = BASE64.decode(transaction).expect("base64");
            let transaction: SignedTransaction = borsh::from_slice(&bytes).expect("a transaction");
            let mut answer = shared.made.lock().clone();
            answer["id"] = request["id"].clone();
            answer["result"]["transaction"]["hash"] = json!(transaction.get_hash().to_string());
            axum::Json(answer).into_response()
        }
        Mood::Endless | Mood::Drip => pour(shared, mood == Mood::Drip),
        Mood::Empty => match request["method"].as_str() {
            Some("query") => {
                let info = json!({
                    "requested_account_id": "por.localnet",
                    "block_height": 1,
                    "block_hash": "11111111111111111111111111111111",
                });
                refusal(request, "UNKNOWN_ACCOUNT", info, Value::Null)
            }
            _ => return None,
        },
        Mood::Forgetful => match (request["method"].as_str(), &request["params"]["signed_tx_base64"]) {
            (Some("tx"), _) => unknown(request),
            (_, Value::String(sent)) if shared.sent.lock().contains(sent) => {
                invalid(request, json!("Expired"))
            }
            _ => return None,
        },
        Mood::Deaf => match request["method"].as_str() {
            Some("tx" | "send_tx") => (StatusCode::TOO_MANY_REQUESTS, "slow down").into_response(),
            _ => return None,
        },
        Mood::Feeless => {
            let asks = request["params"]["method_name"] == "config";
            if !asks || shared.told.fetch_add(1, Ordering::SeqCst) < 2 {
                return None;
            }
            (StatusCode::TOO_MANY_REQUESTS, "slow down").into_response()
        }
        Mood::Graphless => match request["params"]["method_name"].as_str() {
            Some("changes" | "nodes" | "channels") => {
                (StatusCode::TOO_MANY_REQUESTS, "slow down").into_response()
            }
            _ => return None,
        },
        Mood::Keyless if request["params"]["request_type"] != "view_access_key" => return None,
        Mood::Keyless => (StatusCode::TOO_MANY_REQUESTS, "slow down").into_response(),
        Mood::Headless if request["method"] != "block" => return None,
        Mood::Headless => (StatusCode::TOO_MANY_REQUESTS, "slow down").into_response(),
        Mood::Hasty => match request["method"].as_str() {
            Some("tx" | "send_tx") => refusal(request, "TIMEOUT_ERROR", Value::Null, Value::Null),
            _ => return None,
        },
        Mood::Frozen => {
            let mut answer = shared.answers.lock().get(question).cloned()?;
            answer["id"] = request["id"].clone();
            axum::Json(answer).into_response()
        }
        Mood::Limited => (StatusCode::TOO_MANY_REQUESTS, "slow down").into_response(),
        Mood::Page => axum::response::Html("<html>welcome</html>").into_response(),
        Mood::Nonsense => {
            let answer = json!({ "jsonrpc": "2.0", "id": request["id"], "result": [1, null] });
            axum::Json(answer).into_response()
        }
        Mood::Torn => "{\"jsonrpc\": \"2.0\", \"resu".into_response(),
    })
}

/// A body without an end.
fn pour(shared: &Shared, slowly: bool) -> Response {
    let poured = shared.poured.clone();
    let chunk = if slowly { Bytes::from_static(b" ") } else { Bytes::from(vec![b' '; 1 << 20]) };
    let pause = Duration::from_millis(if slowly { 100 } else { 5 });
    let body = futures::stream::unfold((), move |()| {
        let (poured, chunk) = (poured.clone(), chunk.clone());
        async move {
            tokio::time::sleep(pause).await;
            poured.fetch_add(chunk.len() as u64, Ordering::SeqCst);
            Some((Ok::<_, std::convert::Infallible>(chunk), ()))
        }
    });
    axum::body::Body::from_stream(body).into_response()
}

/// Has the lie change what was answered; what a view returns is bytes in JSON.
fn falsify(shared: &Shared, request: &Value, answer: &mut Value) {
    let Some(result) = answer.get_mut("result") else { return };
    let params = &request["params"];
    let lie = shared.lie.lock();
    let Some(lie) = lie.as_ref() else { return };
    let before = result.clone();
    if let Some(view) = params["method_name"].as_str() {
        let args = BASE64.decode(params["args_base64"].as_str().unwrap_or_default()).expect("base64");
        let args: Value = serde_json::from_slice(&args).unwrap_or_default();
        let bytes: Vec<u8> = serde_json::from_value(result["result"].clone()).expect("bytes");
        let mut value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        lie(view, &args, &mut value);
        result["result"] = json!(serde_json::to_vec(&value).expect("JSON"));
    } else {
        let method = request["method"].as_str().unwrap_or_default();
        lie(params["request_type"].as_str().unwrap_or(method), params, result);
    }
    if *result != before {
        shared.spoiled.fetch_add(1, Ordering::SeqCst);
    }
}

/// An error as nodes give it.
fn refusal(request: &Value, name: &str, info: Value, data: Value) -> Response {
    let error = json!({
        "name": "HANDLER_ERROR",
        "cause": { "name": name, "info": info },
        "code": -32000,
        "message": "Server error",
        "data": data,
    });
    axum::Json(json!({ "jsonrpc": "2.0", "id": request["id"], "error": error })).into_response()
}

fn invalid(request: &Value, why: Value) -> Response {
    let data = json!({ "TxExecutionError": { "InvalidTxError": why } });
    refusal(request, "INVALID_TRANSACTION", json!({}), data)
}

fn unknown(request: &Value) -> Response {
    let info = json!({ "requested_transaction_hash": request["params"]["tx_hash"] });
    refusal(request, "UNKNOWN_TRANSACTION", info, Value::Null)
}

/// Raises the heights that an answer names. True if there were any.
fn raise(answer: &mut Value) -> bool {
    let mut any = false;
    heights(answer, |height| {
        any = true;
        height + 1_000_000_000
    });
    any
}

impl Shared {
    /// Lowers the heights that an answer names to the first that it has named. True if there were any.
    fn hold_back(&self, answer: &mut Value) -> bool {
        let mut any = false;
        heights(answer, |height| {
            any = true;
            self.height.fetch_min(height, Ordering::SeqCst).min(height)
        });
        any
    }
}

fn heights(answer: &mut Value, mut change: impl FnMut(u64) -> u64) {
    for place in ["/result/block_height", "/result/header/height", "/result/sync_info/latest_block_height"] {
        if let Some(height) = answer.pointer_mut(place)
            && let Some(number) = height.as_u64()
        {
            *height = Value::from(change(number));
        }
    }
}
