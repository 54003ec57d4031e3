//! Requests of hosts, and their routes.

use bytes::Bytes;
use por_types::{Hop, Yocto};

use super::{APP, Asked, CHAIN_TIME_MS, Edge, World, request_body};
use crate::api::{Command, Input};

impl World {
    /// A route over these hosts, with generous allowances.
    pub fn route(&self, path: &[usize], body_len: u64, response_limit: u64) -> Vec<Hop> {
        path.windows(2)
            .map(|pair| {
                let joins = |e: &&Edge| (e.a, e.b) == (pair[0], pair[1]) || (e.b, e.a) == (pair[0], pair[1]);
                let open = |e: &&Edge| joins(e) && self.is_open_to(path[0], e.channel);
                let edge = self.edges.iter().find(open).or_else(|| self.edges.iter().find(joins));
                let edge = edge.unwrap_or_else(|| panic!("no edge {pair:?}"));
                let terms = self.terms(edge.channel);
                Hop {
                    channel: edge.channel,
                    to: self.key(pair[1]),
                    price: terms.price(body_len, response_limit).unwrap_or_default(),
                    allowance_ms: terms.allowance_ms(body_len, response_limit) + self.options.slack_ms,
                }
            })
            .collect()
    }

    /// Asks for a response of `response_len` bytes over a path. Returns the token.
    pub fn request(&mut self, path: &[usize], body_len: usize, response_len: u64) -> u64 {
        let token = self.asked.len() as u64 + 1;
        self.ask(path, token, request_body(token, body_len), response_len.max(8))
    }

    /// A request without a byte, for an answer without a byte: what it takes is the round trip alone.
    pub fn request_empty(&mut self, path: &[usize]) -> u64 {
        let token = self.asked.len() as u64 + 1;
        self.ask(path, token, Bytes::new(), 0)
    }

    fn ask(&mut self, path: &[usize], token: u64, body: Bytes, limit: u64) -> u64 {
        let route = self.route(path, body.len() as u64, limit);
        let server_price = self.server_price;
        let asked = Asked { author: path[0], route: route.clone(), server_price, response_len: limit };
        self.asked.insert(token, asked);
        let destination = self.key(path[path.len() - 1]);
        let command = Command::Request {
            token,
            destination,
            app: APP.into(),
            body,
            response_limit: limit,
            server_price,
            expires_ms: CHAIN_TIME_MS + 3_600_000,
            graph_version: 1,
            route,
        };
        self.input(path[0], Input::Command(command));
        token
    }

    /// What requests offer the app from now on.
    pub fn set_server_price(&mut self, price: Yocto) {
        self.server_price = price;
    }
}
