use por_types::{NodeSecret, Side, Terms, Yocto};

use super::*;
use crate::localnet::local_params;

fn view(id: u64, status: ChannelStatus, sent_a: u128) -> ChannelView {
    let key = |seed| NodeSecret::from_seed(&[seed; 32]).public();
    ChannelView {
        channel: ChannelId(id),
        a: "a.test".parse().expect("account"),
        b: "b.test".parse().expect("account"),
        key_a: key(1),
        key_b: key(2),
        deposit_a: Yocto(1000),
        deposit_b: Yocto(1000),
        drawn_a: Yocto::ZERO,
        drawn_b: Yocto::ZERO,
        bond: Yocto(10),
        totals: Totals { sent_a: Yocto(sent_a), sent_b: Yocto::ZERO },
        terms: Terms {
            rtt_ms: 10,
            bytes_per_s: 1,
            base_fee: Yocto(1),
            byte_fee: Yocto(1),
            heartbeat_ms: 10,
            grace_ms: 10,
            max_requests: 1,
            max_bytes: 1,
        },
        sequence: 0,
        status,
    }
}

const SEVERED: ChannelStatus = ChannelStatus::Severed { by: Side::A, severed_ms: 1, settles_ms: 9 };
const CLOSED: ChannelStatus =
    ChannelStatus::Closed { paid_a: Yocto(1), paid_b: Yocto(1), bonds_until_ms: None, severed: true };

fn shown(height: u64, view: Option<&ChannelView>) -> Shown {
    Shown { height, channels: view.into_iter().map(|view| (view.channel, view.clone())).collect() }
}

/// Asks of everything, whether it is due or not.
fn ask(others: &mut Others, answers: &[Shown]) {
    others.take((ChannelId(0), 1_000), answers);
}

#[test]
fn ids_that_lie_together_share_a_question() {
    let known = [3, 4, 102, 103, 500, u64::MAX - 1, u64::MAX].map(ChannelId);
    let questions = [(3, 100), (103, 1), (500, 1), (u64::MAX - 1, 2)];
    assert_eq!(pages(&known), questions.map(|(first, len)| (ChannelId(first), len)));
    assert!(pages(&[]).is_empty());
}

#[test]
fn what_only_some_show_is_acted_on_once_and_then_more_seldom() {
    let mut others = Others::new(&local_params());
    let (open, severed) = (view(7, ChannelStatus::Open, 0), view(7, SEVERED, 0));
    let id = open.channel;
    others.know([(id, Some(&open))].into_iter(), 10);
    assert!(others.act_on(id).is_empty(), "nobody was asked");
    assert!(!others.agree(id));
    ask(&mut others, &[shown(10, Some(&open)), shown(10, Some(&severed)), shown(9, None)]);
    assert!(!others.agree(id));
    assert_eq!(others.act_on(id), std::slice::from_ref(&severed));
    assert!(others.act_on(id).is_empty(), "at once again");
    let first = others.vain[&id].1;
    others.vain.get_mut(&id).expect("there").0 -= first;
    assert_eq!(others.act_on(id), [severed]);
    assert_eq!(others.vain[&id].1, (first * 2).min(others.longest));
    // They agree again.
    ask(&mut others, &[shown(10, Some(&open)), shown(11, Some(&open))]);
    assert!(others.agree(id) && others.vain.is_empty() && others.act_on(id).is_empty());
    // What was said of another record says nothing of this one.
    others.know([(id, Some(&view(7, ChannelStatus::Open, 5)))].into_iter(), 12);
    assert!(!others.agree(id));
}

#[test]
fn who_is_behind_what_is_known_has_no_say() {
    let mut others = Others::new(&local_params());
    let severed = view(7, SEVERED, 3);
    others.know([(severed.channel, Some(&severed))].into_iter(), 100);
    ask(&mut others, &[shown(99, Some(&view(7, ChannelStatus::Open, 0))), shown(100, Some(&severed))]);
    assert!(others.agree(severed.channel) && others.act_on(severed.channel).is_empty());
}

#[test]
fn a_channel_is_not_used_if_half_of_the_endpoints_say_that_it_is_not_open() {
    let mut others = Others::new(&local_params());
    let open = view(7, ChannelStatus::Open, 0);
    let id = open.channel;
    others.know([(id, Some(&open))].into_iter(), 10);
    assert!(!others.doubt_use(id), "nobody was asked");
    let (is, not) = (shown(10, Some(&open)), shown(10, Some(&view(7, SEVERED, 0))));
    ask(&mut others, &[is.clone(), is.clone(), not.clone()]);
    assert!(!others.doubt_use(id));
    ask(&mut others, &[is, not.clone()]);
    assert!(others.doubt_use(id));
    ask(&mut others, &[not]);
    assert!(others.doubt_use(id));
}

#[test]
fn a_channel_is_not_used_if_half_of_the_endpoints_say_that_less_is_behind_it() {
    let open = view(7, ChannelStatus::Open, 0);
    let id = open.channel;
    let doubted = |change: fn(&mut ChannelView)| {
        let mut others = Others::new(&local_params());
        others.know([(id, Some(&open))].into_iter(), 10);
        let mut other = open.clone();
        change(&mut other);
        ask(&mut others, &[shown(10, Some(&open)), shown(11, Some(&other))]);
        others.doubt_use(id)
    };
    assert!(!doubted(|_| ()));
    assert!(!doubted(|other| other.deposit_b = Yocto(1001)));
    assert!(!doubted(|other| other.totals.sent_a = Yocto(5)));
    assert!(doubted(|other| other.deposit_b = Yocto(999)));
    assert!(doubted(|other| other.deposit_a = Yocto(999)));
    assert!(doubted(|other| other.drawn_b = Yocto(1)));
    assert!(doubted(|other| other.bond = Yocto::ZERO));
    assert!(doubted(|other| other.terms.base_fee = Yocto(2)));
    assert!(doubted(|other| other.key_b = other.key_a));
}

#[test]
fn what_is_new_is_asked_of_first_and_again_while_some_are_behind() {
    let mut others = Others::new(&local_params());
    let (old, new) = (view(7, ChannelStatus::Open, 0), view(500, ChannelStatus::Open, 0));
    let due = |others: &mut Others| {
        others.due = Instant::now();
        others.due_pages(1).pop().map(|(id, _)| id)
    };
    others.know([(old.channel, Some(&old))].into_iter(), 10);
    assert_eq!(due(&mut others), Some(old.channel));
    ask(&mut others, &[shown(10, Some(&old)), shown(10, Some(&old))]);
    let both = [(old.channel, Some(&old)), (new.channel, Some(&new))];
    for _ in 0..TRIES {
        others.know(both.into_iter(), 20);
        assert_eq!(due(&mut others), Some(new.channel));
        ask(&mut others, &[shown(20, Some(&new)), shown(19, None)]);
    }
    // One of them stays behind: it is asked with the others, in turn.
    let next = [due(&mut others), due(&mut others)];
    assert!(next.contains(&Some(old.channel)) && next.contains(&Some(new.channel)), "{next:?}");
}

#[test]
fn of_what_is_over_by_all_nothing_is_asked_any_more() {
    let mut others = Others::new(&local_params());
    let closed = view(7, CLOSED, 3);
    let known = [(closed.channel, Some(&closed)), (ChannelId(500), None)];
    others.know(known.into_iter(), 10);
    let due = |others: &mut Others| {
        others.due = Instant::now();
        others.due_pages(1)
    };
    assert_eq!(due(&mut others), [(ChannelId(7), 1)]);
    assert!(others.due_pages(1).is_empty(), "not due");
    assert_eq!(due(&mut others), [(ChannelId(500), 1)]);
    assert_eq!(due(&mut others), [(ChannelId(7), 1)], "from the beginning");
    // One shows it otherwise: then nobody forgets it.
    others.take((ChannelId(7), 1), &[shown(10, Some(&closed)), shown(10, Some(&view(7, SEVERED, 0)))]);
    assert!(!others.agree(closed.channel));
    assert!(!others.agree(ChannelId(500)), "of this nothing was said");
    ask(&mut others, &[shown(10, Some(&closed)), shown(10, None)]);
    assert!(others.agree(closed.channel) && others.agree(ChannelId(500)));
    assert!(due(&mut others).is_empty());
}

#[test]
fn who_was_away_for_long_makes_up_for_what_it_has_not_asked() {
    let mut others = Others::new(&local_params());
    let ids: Vec<ChannelId> = (0..10).map(|number| ChannelId(number * 1_000)).collect();
    others.know(ids.iter().map(|id| (*id, None)), 1);
    others.due = Instant::now() - others.sweep * 100;
    let first: Vec<ChannelId> = others.due_pages(4).into_iter().map(|(id, _)| id).collect();
    assert_eq!(first, ids[..4]);
    others.due = Instant::now() - others.sweep * 100;
    let rest: Vec<ChannelId> = others.due_pages(100).into_iter().map(|(id, _)| id).collect();
    assert_eq!(rest, [&ids[4..], &ids[..4]].concat(), "each once");
}

#[test]
fn totals_are_agreed_on_by_more_than_half() {
    let totals = Totals { sent_a: Yocto(5), sent_b: Yocto::ZERO };
    let id = ChannelId(7);
    let knows = |sent_a| shown(1, Some(&view(7, ChannelStatus::Open, sent_a)));
    assert!(!agree_on_totals(id, totals, &[]), "nobody answers");
    assert!(agree_on_totals(id, totals, &[knows(5)]));
    assert!(!agree_on_totals(id, totals, &[knows(5), knows(4)]));
    assert!(agree_on_totals(id, totals, &[knows(5), knows(6), knows(0)]));
    assert!(!agree_on_totals(id, totals, &[knows(5), shown(1, None)]));
}
