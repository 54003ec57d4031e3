//! What `up` asks and pays for, and what `down` answers.

use bytes::Bytes;
use por_core::types::{
    ChannelState, Hash, Hop, Item, ItemKind, Items, RequestHead, RequestId, ResponseReceipt, Side, Signed,
    Yocto,
};
use por_core::wire::{self, Frame, Rejection, RequestItem, ResponseItem};
use por_core::*;

use super::*;

impl Rig {
    /// A request of `up` through the node to `down`.
    pub fn head(&self, body: &[u8], response_limit: u64) -> RequestHead {
        let quote = self.terms.quote(body.len() as u64, response_limit).unwrap();
        let hop = |channel, to| Hop { channel, to, price: quote.price, allowance_ms: quote.allowance_ms };
        RequestHead {
            author: self.up.public(),
            nonce: self.exchanges,
            destination: self.down.public(),
            app: "app".into(),
            body_hash: Hash(*blake3::hash(body).as_bytes()),
            body_len: body.len() as u64,
            response_limit,
            expires_ms: NOW + 60_000,
            graph_version: 5,
            server_price: Yocto(10),
            route: vec![hop(IN, self.me), hop(OUT, self.down.public())],
        }
    }

    /// The same ending at the node itself.
    pub fn head_here(&self, body: &[u8], response_limit: u64) -> RequestHead {
        let mut head = self.head(body, response_limit);
        head.route.truncate(1);
        head.destination = self.me;
        head
    }

    /// The item of a request, signed by `up`.
    pub fn item(&mut self, head: &RequestHead, body: &[u8]) -> RequestItem {
        self.exchanges += 1;
        RequestItem {
            exchange: ExchangeId(self.exchanges),
            hop: 0,
            head: borsh::to_vec(head).unwrap().into(),
            proof: sign_one(&self.up, head),
            body: Some(Bytes::copy_from_slice(body)),
            again: false,
            channel: None,
        }
    }

    /// `up`'s payment on IN for these heads.
    pub fn payment(&mut self, heads: &[&RequestHead]) -> Signed<ChannelState> {
        let item = |head: &&RequestHead| Item {
            request: head.id(&network()),
            amount: head.payment_at(0).unwrap(),
            kind: ItemKind::Request,
        };
        let items: Vec<Item> = heads.iter().map(item).collect();
        let sum = Yocto::checked_sum(items.iter().map(|item| item.amount)).unwrap();
        self.paid_up = self.paid_up.checked_add(sum).unwrap();
        let items = Items { channel: IN, payer: Side::A, items };
        state(&self.up, IN, self.paid_up, Yocto::ZERO, items.hash(&network()))
    }

    /// Sends one paid request and returns its id and exchange.
    pub fn ask(&mut self, head: &RequestHead, body: &[u8]) -> (RequestId, ExchangeId) {
        let item = self.item(head, body);
        let exchange = item.exchange;
        let payment = Some(self.payment(&[head]));
        self.up_sends(Frame::Request(wire::Request { payment, resent: false, requests: vec![item] }));
        (head.id(&network()), exchange)
    }

    /// The other neighbour asks `down` through the node: true if it was passed on.
    pub fn ask_from_other(&mut self, body: &[u8], limit: u64) -> bool {
        let other = self.other.clone().expect("there is one");
        let mut head = self.head(body, limit);
        (head.author, head.route[0].channel) = (other.public(), OTHER);
        head.route[1].allowance_ms += 10_000;
        let mut item = self.item(&head, body);
        item.proof = sign_one(&other, &head);
        let amount = head.payment_at(0).unwrap();
        self.paid_other = self.paid_other.checked_add(amount).unwrap();
        let paid = Item { request: head.id(&network()), amount, kind: ItemKind::Request };
        let items = Items { channel: OTHER, payer: Side::A, items: vec![paid] };
        let payment = state(&other, OTHER, self.paid_other, Yocto::ZERO, items.hash(&network()));
        let request = wire::Request { payment: Some(payment), resent: false, requests: vec![item] };
        self.frame(other.public(), Frame::Request(request));
        self.was_passed_on()
    }

    /// `down` asks the node's own app over OUT, and pays for nothing else.
    pub fn ask_from_down(&mut self, body: &[u8], limit: u64) -> (RequestId, ExchangeId) {
        let mut head = self.head_here(body, limit);
        (head.author, head.route[0].channel) = (self.down.public(), OUT);
        let mut item = self.item(&head, body);
        item.proof = sign_one(&self.down, &head);
        let exchange = item.exchange;
        let (request, amount) = (head.id(&network()), head.payment_at(0).unwrap());
        let items = vec![Item { request, amount, kind: ItemKind::Request }];
        let items = Items { channel: OUT, payer: Side::B, items };
        self.paid_down = self.paid_down.checked_add(amount).unwrap();
        let payment = state(&self.down, OUT, Yocto::ZERO, self.paid_down, items.hash(&network()));
        self.down_sends(Frame::Request(wire::Request {
            payment: Some(payment),
            resent: false,
            requests: vec![item],
        }));
        (request, exchange)
    }

    /// `up` asks `down` through the node: true if it was passed on.
    pub fn ask_through(&mut self, body: &[u8], limit: u64) -> bool {
        let mut head = self.head(body, limit);
        head.route[1].allowance_ms += 10_000;
        self.ask(&head, body);
        self.was_passed_on()
    }

    fn was_passed_on(&mut self) -> bool {
        self.down_got().iter().any(|frame| matches!(frame, Frame::Request(_)))
    }

    /// Asks through the node and returns what `down` received.
    pub fn relayed(&mut self, body: &[u8], limit: u64) -> (RequestId, RequestItem) {
        let mut head = self.head(body, limit);
        head.route[1].allowance_ms += 10_000;
        let (id, _) = self.ask(&head, body);
        (id, self.down_asked())
    }

    /// The request that `down` has received since it was looked at last.
    pub fn down_asked(&mut self) -> RequestItem {
        let item = self.down_got().into_iter().find_map(|frame| match frame {
            Frame::Request(request) => request.requests.into_iter().next(),
            _ => None,
        });
        item.expect("passed on")
    }

    /// [`Rig::relayed`], with the node under obligation: upstream has learned in a new session that it has the request.
    pub fn obliged(&mut self, body: &[u8], limit: u64) -> (RequestId, RequestItem) {
        let relayed = self.relayed(body, limit);
        self.reconnect(self.up.public());
        relayed
    }

    /// Asks `down` on the node's own behalf; why not, if it refuses.
    pub fn ask_own(&mut self, server_price: u128) -> Option<RejectReason> {
        let head = self.head(b"question", 100);
        self.ask_own_over(Hop { allowance_ms: 60_000, ..head.route[1].clone() }, server_price)
    }

    /// Asks the end of one hop; why not, if it refuses.
    pub fn ask_own_over(&mut self, hop: Hop, server_price: u128) -> Option<RejectReason> {
        self.events.clear();
        self.input(Input::Command(Command::Request {
            token: 1,
            destination: hop.to,
            app: "app".into(),
            body: b"question".as_slice().into(),
            response_limit: 100,
            server_price: Yocto(server_price),
            expires_ms: NOW + 60_000,
            graph_version: 5,
            route: vec![hop],
        }));
        self.events.iter().find_map(|event| match event {
            Event::Refused { reason, .. } => Some(*reason),
            _ => None,
        })
    }

    /// `down` pays so much more for the lateness of the only exchange that it is late with.
    pub fn down_pays_late(&mut self, request: RequestId, exchange: ExchangeId, amount: Yocto) {
        let item = Item { request, amount, kind: ItemKind::Late };
        let items = Items { channel: OUT, payer: Side::B, items: vec![item] };
        self.paid_down = self.paid_down.checked_add(amount).unwrap();
        let payment = state(&self.down, OUT, Yocto::ZERO, self.paid_down, items.hash(&network()));
        let items = vec![wire::LateItem { exchange, amount, total: self.paid_down }];
        self.down_sends(Frame::Late(wire::Late { payment, resent: false, items }));
    }

    /// Id of a request that was passed on.
    pub fn last_request(&self, item: &RequestItem) -> RequestId {
        borsh::from_slice::<RequestHead>(&item.head).unwrap().id(&network())
    }

    pub fn rejection(&mut self) -> Option<(RejectReason, Option<types::SignedInvalid>)> {
        self.up_got().into_iter().find_map(|frame| match frame {
            Frame::Reject(reject) => reject.rejections.into_iter().next().map(|r| (r.reason, r.invalid)),
            _ => None,
        })
    }

    /// `down` gives back what it was paid for a request, for this reason.
    pub fn down_refuses(&mut self, request: RequestId, rejection: Rejection) {
        let amount = self.node.channel(OUT).unwrap().pending_out;
        let payment = Some(self.refund(request, amount));
        self.down_sends(Frame::Reject(wire::Reject { payment, resent: false, rejections: vec![rejection] }));
    }

    /// `down`'s payment that gives a request's back.
    pub fn refund(&mut self, request: RequestId, amount: Yocto) -> Signed<ChannelState> {
        let items = vec![Item { request, amount, kind: ItemKind::Refund }];
        let items = Items { channel: OUT, payer: Side::B, items };
        self.paid_down = self.paid_down.checked_add(amount).unwrap();
        let mine = self.node.channel(OUT).unwrap().totals.sent_a;
        state(&self.down, OUT, mine, self.paid_down, items.hash(&network()))
    }

    /// A response of `down`.
    pub fn response(&self, request: RequestId, exchange: ExchangeId, body: &[u8]) -> ResponseItem {
        let body_hash = Hash(*blake3::hash(body).as_bytes());
        let receipt = ResponseReceipt { request, body_len: body.len() as u64, body_hash };
        let proof = sign_one(&self.down, &receipt);
        let receipt = SignedReceipt { receipt, proof };
        ResponseItem {
            exchange,
            receipt,
            resume: false,
            body: Some(Bytes::copy_from_slice(body)),
            late: None,
        }
    }

    pub fn respond(&mut self, item: ResponseItem) {
        self.down_sends(Frame::Response(wire::Response {
            payment: None,
            resent: false,
            responses: vec![item],
        }));
    }

    pub fn responses_up_got(&mut self) -> Vec<ResponseItem> {
        let responses = self.up_got().into_iter().filter_map(|frame| match frame {
            Frame::Response(response) => Some(response.responses),
            _ => None,
        });
        responses.flatten().collect()
    }
}
