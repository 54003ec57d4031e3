//! Properties of amounts, ids, flush trees, totals and settlement.

use por_types::interface::{code, error_code};
use por_types::*;
use proptest::prelude::*;

fn leaves(count: usize) -> Vec<Hash> {
    (0..count).map(|index| leaf_hash(&(index as u64).to_le_bytes())).collect()
}

proptest! {
    #[test]
    fn amounts_survive_every_text_form(amount: u128) {
        let amount = Yocto(amount);
        prop_assert_eq!(Yocto::parse_human(&amount.to_near_string()), Ok(amount));
        prop_assert_eq!(Yocto::parse_human(&amount.to_string()), Ok(amount));
        prop_assert_eq!(amount.to_string().parse(), Ok(amount));
        let json = serde_json::to_string(&amount).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<Yocto>(&json).expect("amount"), amount);
    }

    #[test]
    fn no_text_panics(text: String) {
        let _ = Yocto::parse_human(&text);
        let _ = text.parse::<NodeKey>();
        let _ = text.parse::<ChannelId>();
        let _ = error_code(&text);
    }

    #[test]
    fn ids_survive_their_text(key: [u8; 32], signature in proptest::collection::vec(any::<u8>(), 64)) {
        let key = NodeKey(key);
        prop_assert_eq!(key.to_string().parse(), Ok(key));
        let signature = Signature::try_from(signature.as_slice()).expect("64 bytes");
        prop_assert_eq!(signature.to_string().parse(), Ok(signature));
        prop_assert!(signature.to_string().parse::<NodeKey>().is_err());
    }

    #[test]
    fn weak_keys_are_those_of_small_order(key: [u8; 32]) {
        let weak = ed25519_dalek::VerifyingKey::from_bytes(&key).is_ok_and(|key| key.is_weak());
        prop_assert_eq!(NodeKey(key).is_weak(), weak);
    }

    #[test]
    fn every_leaf_of_a_flush_proves_itself_and_nothing_else(
        count in 1usize..200, at: prop::sample::Index, other: prop::sample::Index, flip in 0usize..4
    ) {
        let leaves = leaves(count);
        let tree = FlushTree::new(leaves.clone()).expect("tree");
        let index = at.index(count);
        let proof = tree.proof(index as u32, Signature([0; 64])).expect("proof");
        prop_assert_eq!(proof.root_for(leaves[index]), Some(tree.root()));

        let other = other.index(count);
        if other != index {
            prop_assert_ne!(proof.root_for(leaves[other]), Some(tree.root()));
            let moved = FlushProof { index: other as u32, ..proof.clone() };
            prop_assert_ne!(moved.root_for(leaves[index]), Some(tree.root()));
        }
        let mut wrong = proof.clone();
        match flip {
            0 => wrong.path.push(Hash([0; 32])),
            1 => { if wrong.path.pop().is_none() { wrong.leaves = 2; } }
            2 => wrong.index = wrong.leaves,
            _ => wrong.leaves = 0,
        }
        prop_assert_eq!(wrong.root_for(leaves[index]), None);
    }

    #[test]
    fn payouts_sum_to_the_pot(
        deposits: [u64; 2], drawn: [u64; 2], sent: [u128; 2], small: [u64; 2], use_small: bool
    ) {
        // Draws never exceed what the channel holds.
        let pot = u128::from(deposits[0]) + u128::from(deposits[1]);
        let drawn_a = u128::from(drawn[0]) % (pot + 1);
        let drawn_b = u128::from(drawn[1]) % (pot - drawn_a + 1);
        let funds = Funds {
            deposit_a: Yocto(deposits[0].into()),
            deposit_b: Yocto(deposits[1].into()),
            drawn_a: Yocto(drawn_a),
            drawn_b: Yocto(drawn_b),
        };
        let sent = if use_small { small.map(u128::from) } else { sent };
        let totals = Totals { sent_a: Yocto(sent[0]), sent_b: Yocto(sent[1]) };
        let paid = funds.settle(totals).expect("settles");
        let pot = pot - drawn_a - drawn_b;
        prop_assert_eq!(paid.a.0 + paid.b.0, pot);
        if use_small {
            let exact = i128::from(deposits[0]) - drawn_a as i128 - sent[0] as i128 + sent[1] as i128;
            prop_assert_eq!(paid.a.0 as i128, exact.clamp(0, pot as i128));
            prop_assert_eq!(
                funds.covers(totals),
                exact >= 0 && exact <= pot as i128,
                "covered totals are exactly those that settle without clamping"
            );
        }
    }

    #[test]
    fn a_higher_total_never_pays_its_payer_more(deposits: [u64; 2], sent: [u128; 2], more: u128) {
        let funds = Funds {
            deposit_a: Yocto(deposits[0].into()),
            deposit_b: Yocto(deposits[1].into()),
            ..Funds::default()
        };
        let totals = Totals { sent_a: Yocto(sent[0]), sent_b: Yocto(sent[1]) };
        let raised = Totals { sent_a: Yocto(sent[0].saturating_add(more)), ..totals };
        let (before, after) = (funds.settle(totals).expect("settles"), funds.settle(raised).expect("settles"));
        prop_assert!(after.a <= before.a);
        prop_assert!(after.b >= before.b);
    }

    #[test]
    fn prices_and_allowances_grow_with_bytes(body: u32, limit: u32, more: u32) {
        let terms = Terms {
            rtt_ms: 200, bytes_per_s: 1_000, base_fee: Yocto(7), byte_fee: Yocto(3),
            heartbeat_ms: 1, grace_ms: 1, max_requests: 1, max_bytes: 1,
        };
        let (body, limit, more) = (u64::from(body), u64::from(limit), u64::from(more));
        let quote = terms.quote(body, limit).expect("quote");
        prop_assert_eq!(quote.price, Yocto(7 + 3 * (u128::from(body) + u128::from(limit))));
        prop_assert_eq!(quote.allowance_ms, 200 + body + limit);
        let bigger = terms.quote(body + more, limit).expect("quote");
        prop_assert!(bigger.price >= quote.price && bigger.allowance_ms >= quote.allowance_ms);
    }
}

#[test]
fn all_known_weak_keys_are_refused() {
    let known = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    for text in known {
        for sign in [0, 0x80] {
            let mut key: [u8; 32] = hex::decode(text).expect("hex").try_into().expect("32 bytes");
            key[31] |= sign;
            assert!(NodeKey(key).is_weak());
            // Where ed25519-dalek reads the encoding as a point at all, it agrees.
            if let Ok(point) = ed25519_dalek::VerifyingKey::from_bytes(&key) {
                assert!(point.is_weak(), "{text}");
            }
        }
    }
}

#[test]
fn a_flush_holds_at_most_its_maximum() {
    assert!(FlushTree::new(Vec::new()).is_none());
    assert!(FlushTree::new(leaves((1 << MAX_FLUSH_DEPTH) + 1)).is_none());
    let tree = FlushTree::new(leaves(1 << MAX_FLUSH_DEPTH)).expect("tree");
    let last = tree.leaves() - 1;
    let proof = tree.proof(last, Signature([0; 64])).expect("proof");
    assert_eq!(proof.path.len(), MAX_FLUSH_DEPTH);
    assert_eq!(proof.root_for(leaf_hash(&u64::from(last).to_le_bytes())), Some(tree.root()));
    let too_many = FlushProof { leaves: u32::MAX, ..proof };
    assert_eq!(too_many.root_for(leaf_hash(&[])), None);
}

#[test]
fn error_codes_are_found_where_the_chain_puts_them() {
    assert_eq!(error_code("E_NOT_OPEN: channel 3 is closed"), Some(code::NOT_OPEN));
    let wrapped = "Smart contract panicked: E_DEPOSIT: attach more [src/x.rs]";
    assert_eq!(error_code(wrapped), Some(code::DEPOSIT));
    for other in ["", "E_", "E_: x", "MORE_E_DEPOSIT: x", "E_DEPOSIT", "E_DEPOSIT:x"] {
        assert_eq!(error_code(other), None, "{other}");
    }
}
