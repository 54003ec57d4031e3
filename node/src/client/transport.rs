//! HTTP to the daemon: addresses, the token, timeouts, and errors that say what to do.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use por_types::Yocto;
use reqwest::{Method, Response, Url};

use super::error::{ClientError, ErrorBody, ErrorCode};
use super::{ADDR_FILE, TOKEN_FILE};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest look whether the daemon is there.
const PROBE: Duration = Duration::from_secs(1);
/// Longest error body that is read.
const MAX_ERROR: usize = 64 << 10;
const START_FIX: &str = "start it with `por run`";
const OTHERS_FIX: &str =
    "see whether this home's daemon runs, start it with `por run`, or name the right --home";

/// Where the daemon is and what it takes to be let in.
#[derive(Clone)]
struct Endpoint {
    addr: SocketAddr,
    token: String,
}

pub(super) struct Transport {
    /// `None` if the HTTP client could not be set up; every call says so.
    http: Option<reqwest::Client>,
    home: Option<PathBuf>,
    endpoint: RwLock<Endpoint>,
}

impl std::fmt::Debug for Transport {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("addr", &self.endpoint.read().addr).finish_non_exhaustive()
    }
}

/// One call, ready to be sent (again, if the daemon has moved).
pub(super) struct Call {
    method: Method,
    segments: Vec<String>,
    query: Vec<(&'static str, String)>,
    body: Option<Bytes>,
    json: bool,
    time: Duration,
    at_stake: Yocto,
}

impl Call {
    pub(super) fn new(method: Method, segments: &[&str], time: Duration) -> Call {
        let segments = segments.iter().map(|&s| s.to_owned()).collect();
        Call { method, segments, query: Vec::new(), body: None, json: false, time, at_stake: Yocto::ZERO }
    }

    /// What it may cost, whether or not its answer arrives.
    pub(super) fn at_stake(mut self, at_stake: Yocto) -> Call {
        self.at_stake = at_stake;
        self
    }

    pub(super) fn query(mut self, query: Vec<(&'static str, String)>) -> Call {
        self.query = query;
        self
    }

    pub(super) fn body(mut self, body: Bytes) -> Call {
        self.body = Some(body);
        self
    }

    pub(super) fn json(mut self, body: &impl serde::Serialize) -> Result<Call, ClientError> {
        let bytes = serde_json::to_vec(body)
            .map_err(|error| ClientError::new(ErrorCode::Usage, error.to_string(), ""))?;
        self.body = Some(bytes.into());
        self.json = true;
        Ok(self)
    }
}

impl Transport {
    pub(super) fn new(addr: SocketAddr, token: String) -> Transport {
        Transport::with(Endpoint { addr, token }, None)
    }

    pub(super) fn from_home(home: &Path) -> Result<Transport, ClientError> {
        Ok(Transport::with(read_endpoint(home)?, Some(home.to_owned())))
    }

    fn with(endpoint: Endpoint, home: Option<PathBuf>) -> Transport {
        // Loopback must never go through a proxy of the environment: it would see the token.
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .ok();
        Transport { http, home, endpoint: RwLock::new(endpoint) }
    }

    /// Sends a call and turns every answer that is no success into an error.
    pub(super) async fn send(&self, call: Call) -> Result<Response, ClientError> {
        let endpoint = self.endpoint.read().clone();
        let response = match self.attempt(&call, &endpoint)?.await {
            Err(error) if error.is_connect() => {
                let moved = self.moved(&endpoint).ok_or_else(|| unreachable(&endpoint))?;
                self.attempt(&call, &moved)?.await
            }
            other => other,
        };
        let response = response.map_err(|error| sent_error(error, &endpoint, &call))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let error = read_error(response).await;
        if error.code == ErrorCode::WrongKey && self.home.is_some() {
            // One that was killed leaves its address, and another one may have taken that.
            let what = format!("what answers at {} does not take the token of this home", endpoint.addr);
            return Err(ClientError::new(ErrorCode::WrongKey, what, OTHERS_FIX));
        }
        Err(error)
    }

    /// As [`Transport::send`], with an answer in JSON.
    pub(super) async fn json<T: serde::de::DeserializeOwned>(&self, call: Call) -> Result<T, ClientError> {
        let response = self.send(call).await?;
        let bytes = response.bytes().await.map_err(broken)?;
        serde_json::from_slice(&bytes).map_err(|error| {
            ClientError::new(
                ErrorCode::Foreign,
                format!("the daemon's answer cannot be read: {error}"),
                "use the same version of daemon and client",
            )
        })
    }

    fn attempt(
        &self,
        call: &Call,
        endpoint: &Endpoint,
    ) -> Result<impl Future<Output = Result<Response, reqwest::Error>> + use<>, ClientError> {
        let other = |message: String| ClientError::new(ErrorCode::Other, message, "");
        let http = self.http.as_ref().ok_or_else(|| other("the HTTP client cannot be set up".into()))?;
        let url = url(endpoint.addr, &call.segments).map_err(|error| other(error.to_string()))?;
        let mut request =
            http.request(call.method.clone(), url).bearer_auth(&endpoint.token).timeout(call.time);
        if !call.query.is_empty() {
            request = request.query(&call.query);
        }
        if let Some(body) = &call.body {
            let kind = if call.json { "application/json" } else { "application/octet-stream" };
            request = request.header(reqwest::header::CONTENT_TYPE, kind).body(body.clone());
        }
        Ok(request.send())
    }

    /// Whether something listens at the daemon's address, the present one if it was restarted.
    pub(super) async fn is_there(&self) -> bool {
        let known = self.endpoint.read().clone();
        let addr = self.moved(&known).unwrap_or(known).addr;
        let connected = tokio::net::TcpStream::connect(addr);
        tokio::time::timeout(PROBE, connected).await.is_ok_and(|connected| connected.is_ok())
    }

    /// The daemon's new address, if it was restarted on another port.
    fn moved(&self, old: &Endpoint) -> Option<Endpoint> {
        let new = read_endpoint(self.home.as_deref()?).ok()?;
        if new.addr == old.addr && new.token == old.token {
            return None;
        }
        *self.endpoint.write() = new.clone();
        Some(new)
    }
}

fn url(addr: SocketAddr, segments: &[String]) -> Result<Url, <Url as FromStr>::Err> {
    let mut url = Url::from_str(&format!("http://{addr}/v1"))?;
    if let Ok(mut path) = url.path_segments_mut() {
        path.extend(segments);
    }
    Ok(url)
}

fn read_endpoint(home: &Path) -> Result<Endpoint, ClientError> {
    let addr_path = home.join(ADDR_FILE);
    let addr = std::fs::read_to_string(&addr_path).map_err(|error| {
        let message = match error.kind() {
            std::io::ErrorKind::NotFound => format!("no daemon runs with home {}", home.display()),
            _ => format!("{}: {error}", addr_path.display()),
        };
        ClientError::new(ErrorCode::Unreachable, message, START_FIX)
    })?;
    let addr = addr.trim().parse().map_err(|_| {
        let message = format!("{} holds no address", addr_path.display());
        ClientError::new(ErrorCode::Unreachable, message, "restart the daemon")
    })?;
    let token_path = home.join(TOKEN_FILE);
    let token = std::fs::read_to_string(&token_path).map_err(|error| {
        let message = format!("{}: {error}", token_path.display());
        ClientError::new(ErrorCode::WrongKey, message, "run as the user who runs the daemon")
    })?;
    Ok(Endpoint { addr, token: token.trim().to_owned() })
}

fn unreachable(endpoint: &Endpoint) -> ClientError {
    ClientError::new(ErrorCode::Unreachable, format!("no daemon answers at {}", endpoint.addr), START_FIX)
}

fn sent_error(error: reqwest::Error, endpoint: &Endpoint, call: &Call) -> ClientError {
    if error.is_connect() {
        return unreachable(endpoint);
    }
    let error = if error.is_timeout() {
        let message = format!("the daemon did not answer within {} s", call.time.as_secs());
        ClientError::new(ErrorCode::Deadline, message, "look at its log, or allow more time")
    } else {
        broken(error)
    };
    // The daemon may have taken it, and goes on with what it was paid for also after a restart.
    error.having_spent(call.at_stake)
}

/// The connection broke in the middle of an answer.
pub(super) fn broken(error: reqwest::Error) -> ClientError {
    let mut cause = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        cause = inner.to_string();
        source = inner.source();
    }
    let message = format!("the connection to the daemon broke: {cause}");
    ClientError::new(
        ErrorCode::Unreachable,
        message,
        "see whether it still runs, and what it has done before you repeat it",
    )
}

async fn read_error(mut response: Response) -> ClientError {
    let status = response.status();
    let mut bytes = Vec::new();
    while bytes.len() < MAX_ERROR {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            _ => break,
        }
    }
    match serde_json::from_slice::<ErrorBody>(&bytes) {
        Ok(body) => ClientError::new(body.code, body.error, body.fix)
            .having_spent(body.spent)
            .having_sent(body.requests),
        Err(_) => ClientError::new(
            ErrorCode::Foreign,
            format!("unexpected answer {status}"),
            "see whether another program listens on the daemon's address",
        ),
    }
}

pub(super) fn malformed(what: &str) -> ClientError {
    ClientError::new(
        ErrorCode::Foreign,
        format!("the daemon's answer has no readable {what}"),
        "use the same version of daemon and client",
    )
}

pub(super) fn header_value<'r>(response: &'r Response, name: &str) -> Result<&'r str, ClientError> {
    response.headers().get(name).and_then(|v| v.to_str().ok()).ok_or_else(|| malformed(name))
}

pub(super) fn header<T: FromStr>(response: &Response, name: &str) -> Result<T, ClientError> {
    header_value(response, name)?.parse().map_err(|_| malformed(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_segments_are_escaped() {
        let url =
            url("[::1]:7740".parse().expect("address"), &["apps".into(), "a b/c?".into(), "next".into()])
                .expect("url");
        assert_eq!(url.as_str(), "http://[::1]:7740/v1/apps/a%20b%2Fc%3F/next");
    }

    #[test]
    fn a_home_without_daemon_is_unreachable() {
        let home = tempfile::tempdir().expect("temporary directory");
        let error = Transport::from_home(home.path()).expect_err("no daemon");
        assert_eq!(error.code, ErrorCode::Unreachable);
        assert!(error.fix.contains("por run"), "{error}");
    }

    #[tokio::test]
    async fn a_dead_daemon_is_unreachable() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let addr = listener.local_addr().expect("address");
        drop(listener);
        let transport = Transport::new(addr, "token".into());
        let call = Call::new(Method::GET, &["status"], Duration::from_secs(5));
        let error = transport.send(call).await.expect_err("nobody listens");
        assert_eq!(error.code, ErrorCode::Unreachable);
    }

    /// The address that a killed daemon has left may be another's by now.
    #[tokio::test]
    async fn the_daemon_of_another_home_is_named() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let home = tempfile::tempdir().expect("temporary directory");
        let addr = listener.local_addr().expect("address");
        std::fs::write(home.path().join(ADDR_FILE), addr.to_string()).expect("written");
        std::fs::write(home.path().join(TOKEN_FILE), "token").expect("written");
        let refuses = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let _ = stream.read(&mut [0; 4096]).await.expect("a request");
            let body = serde_json::to_string(&ErrorBody::from(&ClientError::new(
                ErrorCode::WrongKey,
                "the token is missing or wrong",
                "",
            )));
            let body = body.expect("JSON");
            let head = format!("HTTP/1.1 401 Unauthorized\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).await.expect("answered");
        };
        let transport = Transport::from_home(home.path()).expect("found");
        let call = transport.send(Call::new(Method::GET, &["status"], Duration::from_secs(5)));
        let (answered, ()) = tokio::join!(call, refuses);
        let error = answered.expect_err("refused");
        assert_eq!(error.code, ErrorCode::WrongKey);
        assert!(error.message.contains(&addr.to_string()) && error.fix.contains("--home"), "{error}");
    }

    /// It may have paid before it died, and goes on with what it was paid for when it is back.
    #[tokio::test]
    async fn a_request_over_which_the_daemon_dies_counts_as_paid() {
        use crate::client::{ApiRequest, Client};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let client = Client::new(listener.local_addr().expect("address"), "token".into());
        let request = ApiRequest {
            max_price: Some(Yocto(7)),
            deadline: Duration::from_secs(5),
            ..ApiRequest::new(por_types::NodeKey([1; 32]), "app", "question", 10)
        };
        let dies = async {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.readable().await.expect("a request");
            drop((stream, listener));
        };
        let (asked, ()) = tokio::join!(client.request(request.clone()), dies);
        let error = asked.expect_err("no answer");
        assert_eq!((error.code, error.spent), (ErrorCode::Unreachable, Yocto(7)), "{error}");
        let error = client.request(request).await.expect_err("nobody listens");
        assert_eq!((error.code, error.spent), (ErrorCode::Unreachable, Yocto(0)), "nothing was sent");
    }
}
