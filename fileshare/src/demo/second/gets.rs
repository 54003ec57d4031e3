//! Gets that run as processes of their own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use por_types::{NodeKey, Yocto};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin};
use tokio::task::JoinHandle;

use crate::demo::cluster::Cluster;
use crate::demo::failed;
use crate::exit::{Exit, Failure};

/// What a provider asks, way included.
#[derive(Debug, Deserialize)]
pub struct Cost {
    pub node: NodeKey,
    pub total: Yocto,
}

#[derive(Deserialize)]
struct Plan {
    costs: Vec<Cost>,
}

#[derive(Deserialize)]
struct QuoteReport {
    plan: Plan,
}

/// What `fileshare quote` says; `None` while nobody is found.
pub async fn quotes(cluster: &Cluster, reader: &str, id: &str) -> Result<Option<Vec<Cost>>, Failure> {
    let output = cluster
        .command(reader)
        .args(["--json", "quote", id])
        .output()
        .await
        .map_err(|error| Failure::io("fileshare quote", &error))?;
    if !output.status.success() {
        return Ok(None);
    }
    let report: QuoteReport = serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::new(Exit::Other, format!("fileshare quote: {error}"), ""))?;
    Ok(Some(report.plan.costs))
}

/// What came of one provider.
#[derive(Clone, Debug, Deserialize)]
pub struct Tally {
    pub node: NodeKey,
    pub bytes: u64,
    pub failures: u64,
}

/// The last line of `fileshare --json get`.
#[derive(Clone, Debug, Deserialize)]
pub struct Summary {
    pub spent: Yocto,
    pub providers: Vec<Tally>,
}

/// A `fileshare get` under way.
pub struct Getting {
    pub name: &'static str,
    pub target: PathBuf,
    child: Child,
    /// Open as long as this process lives; waiting for the child would close it.
    _parent: Option<ChildStdin>,
    reading: JoinHandle<()>,
    said: Arc<Mutex<Said>>,
}

#[derive(Debug, Default)]
struct Said {
    summary: Option<Summary>,
    last: String,
}

impl Getting {
    pub fn start(
        cluster: &Cluster,
        name: &'static str,
        id: &str,
        target: PathBuf,
    ) -> Result<Getting, Failure> {
        let mut child = cluster
            .command(name)
            .args(["--json", "get", id, "--with-parent", "--yes", "--max-spend", crate::demo::MAX_SPEND])
            // Small windows, few at a time: many are left when the server dies.
            .args(["--window", "1", "--in-flight", "4", "-o"])
            .arg(&target)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::io("fileshare get", &error))?;
        let said: Arc<Mutex<Said>> = Arc::default();
        let parent = child.stdin.take();
        let (errors, heard) = (child.stderr.take(), Arc::clone(&said));
        let reading = tokio::spawn(async move {
            let Some(errors) = errors else { return };
            let mut lines = BufReader::new(errors).lines();
            while let Ok(Some(text)) = lines.next_line().await {
                let mut said = heard.lock().unwrap_or_else(PoisonError::into_inner);
                if let Ok(summary) = serde_json::from_str(&text) {
                    said.summary = Some(summary);
                }
                said.last = text;
            }
        });
        Ok(Getting { name, target, child, _parent: parent, reading, said })
    }

    /// Bytes on disk: what is verified is written to a file beside the target, which has holes.
    pub fn arrived(&self) -> u64 {
        on_disk(&self.target.with_extension("part")).or(on_disk(&self.target)).unwrap_or(0)
    }

    pub fn is_over(&mut self) -> Result<bool, Failure> {
        let status = self.child.try_wait().map_err(|error| Failure::io("fileshare get", &error))?;
        Ok(status.is_some())
    }

    /// Waits for its end.
    ///
    /// Errors: what the get said if it failed.
    pub async fn end(&mut self) -> Result<Summary, Failure> {
        let status = self.child.wait().await.map_err(|error| Failure::io("fileshare get", &error))?;
        let _ = (&mut self.reading).await;
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let summary = said.summary.clone().filter(|_| status.success());
        summary.ok_or_else(|| failed(&format!("{}: fileshare get", self.name), &said.last))
    }
}

fn on_disk(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|metadata| metadata.blocks() * 512)
}
