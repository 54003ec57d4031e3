//! What the demo says: prose for people, JSON lines for programs.

use std::cell::Cell;
use std::io::IsTerminal;

use por_node::exit::tell;
use por_types::Yocto;
use serde_json::{Value, json};

use super::books::{ChannelBook, Check, NodeBook};
use crate::cli::print_line;

pub(super) struct Tell {
    json: bool,
    step: Cell<u32>,
    shown: Cell<u64>,
}

impl Tell {
    pub fn new(json: bool) -> Tell {
        Tell { json, step: Cell::new(0), shown: Cell::new(0) }
    }

    /// A closed stdout is no reason to leave processes half way.
    fn line(&self, text: &str) {
        let _ = print_line(text);
    }

    fn event(&self, name: &str, mut value: Value) {
        if let Some(object) = value.as_object_mut() {
            object.insert("event".to_owned(), name.into());
            object.insert("step".to_owned(), self.step.get().into());
        }
        self.line(&value.to_string());
    }

    pub fn step(&self, title: &str, why: &str) {
        self.step.set(self.step.get() + 1);
        if self.json {
            return self.event("step", json!({ "title": title }));
        }
        self.line(&format!("\n{}. {title}\n", self.step.get()));
        for text in why.lines() {
            self.line(&format!("   {text}"));
        }
        self.line("");
    }

    pub fn fact(&self, text: &str, value: Value) {
        if self.json { self.event("fact", value) } else { self.line(&format!("   · {text}")) }
    }

    /// Something that happened so long after the kill.
    pub fn happened(&self, after_ms: u64, text: &str, mut value: Value) {
        if self.json {
            if let Some(object) = value.as_object_mut() {
                object.insert("after_ms".to_owned(), after_ms.into());
            }
            return self.event("happened", value);
        }
        self.line(&format!("   {:>3}.{:03} s  {text}", after_ms / 1000, after_ms % 1000));
    }

    pub fn note(&self, text: &str) {
        tell(text);
    }

    /// A line per quarter, or a running one on a terminal.
    pub fn progress(&self, done: u64, total: u64, spent: Option<Yocto>) {
        if self.json || total == 0 {
            return;
        }
        let percent = u128::from(done) * 100 / u128::from(total);
        let spent = spent.unwrap_or(Yocto::ZERO).to_near_string();
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K   {percent}%  paid {spent}");
            if done == total {
                eprint!("\r\x1b[K");
            }
        } else if percent as u64 / 25 > self.shown.get() {
            self.shown.set(percent as u64 / 25);
            self.line(&format!("   · {percent}%, paid {spent} so far"));
        }
    }

    pub fn earnings(&self, channels: &[ChannelBook], nodes: &[NodeBook], reader: &str, server: &str) {
        self.step(
            "Who paid whom",
            "Nothing of this is on chain yet: it is what the ends of each channel have signed.",
        );
        for book in channels {
            let ChannelBook { channel, a, b, sent_a, sent_b, .. } = book;
            let text = match (sent_a.is_zero(), sent_b.is_zero()) {
                (true, true) => format!("channel {channel}: {a} – {b} was not used"),
                (false, true) => format!("channel {channel}: {a} paid {b} {}", sent_a.to_near_string()),
                _ => format!(
                    "channel {channel}: {a} paid {b} {}, {b} paid {a} {}",
                    sent_a.to_near_string(),
                    sent_b.to_near_string()
                ),
            };
            self.fact(&text, json!({ "book": book }));
        }
        for node in nodes {
            let text = match node.profit() {
                Ok(profit) if profit.is_zero() => format!("{:<6} earned nothing", node.name),
                Ok(profit) => {
                    let role = if node.name == server { "for serving and its edge" } else { "for relaying" };
                    format!("{:<6} earned {} {role}", node.name, profit.to_near_string())
                }
                Err(loss) => {
                    let role = if node.name == reader { " for the file" } else { "" };
                    format!("{:<6} paid   {}{role}", node.name, loss.to_near_string())
                }
            };
            self.fact(&text, json!({ "earnings": node }));
        }
    }

    /// `held`: what is still in the contract, for people who wonder where the rest is.
    pub fn books(&self, channels: &[ChannelBook], nodes: &[NodeBook], checks: &[Check], held: &str) {
        if self.json {
            let balanced = checks.iter().all(Check::holds);
            let checks: Vec<Value> = checks
                .iter()
                .map(|check| json!({ "what": check.what, "left": check.left, "right": check.right, "holds": check.holds() }))
                .collect();
            return self.event(
                "books",
                json!({ "channels": channels, "nodes": nodes, "checks": checks, "balanced": balanced }),
            );
        }
        for node in nodes {
            if let Some(wallet) = node.wallet {
                self.line(&format!(
                    "   {:<6} has {} on its account (after gas)",
                    node.name,
                    wallet.to_near_string()
                ));
            }
        }
        self.line(&format!("   {held}"));
        self.line("");
        for check in checks {
            let mark = if check.holds() { "=" } else { "≠  WRONG" };
            self.line(&format!("   {}", check.what));
            let (left, right) = (check.left.to_near_string(), check.right.to_near_string());
            self.line(&format!("      {left} {mark} {right}"));
        }
        if checks.iter().all(Check::holds) {
            self.line("\n   The books balance.");
        }
    }
}
