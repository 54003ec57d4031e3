//! Accounts, keys, nonces and balances.

use std::time::Duration;

use near_crypto::{KeyType, SecretKey};
use near_primitives::account::{AccessKey, AccessKeyPermission, FunctionCallPermission};
use near_primitives::action::delegate::{DelegateAction, SignedDelegateAction};
use near_primitives::action::{Action, DeleteAccountAction, DeleteKeyAction, StakeAction};
use near_primitives::errors::{
    ActionErrorKind, ActionsValidationError, InvalidAccessKeyError, InvalidTxError,
};
use near_primitives::hash::CryptoHash;
use near_primitives::types::Balance;
use por_localnet::Config;

use crate::client::*;

#[tokio::test]
async fn a_transfer_moves_tokens_and_burns_the_fee() {
    let chain = Chain::start().await;
    let (alice, bob) = (chain.user().await, chain.user().await);
    let outcome = chain.act(&alice, &bob.id, vec![transfer(near(3))]).await;
    succeeded(&outcome);
    let fee = burnt(&outcome);
    assert!(fee > 0);
    assert_eq!(chain.balance(&bob.id).await, near(103).as_yoctonear());
    assert_eq!(chain.balance(&alice.id).await, near(97).as_yoctonear() - fee);
}

#[tokio::test]
async fn invalid_transactions_are_refused_with_the_reason() {
    let chain = Chain::start().await;
    let (alice, bob) = (chain.user().await, chain.user().await);

    let error = chain.refused(&alice, &bob.id, vec![transfer(near(1_000))]).await;
    assert!(matches!(error, InvalidTxError::NotEnoughBalance { .. }), "{error:?}");

    let nonce = chain.nonce(&alice.id, &alice.key.public_key()).await;
    let stale = chain.sign_with(&alice, nonce, &bob.id, vec![transfer(near(1))]).await;
    let error = invalid(chain.send(stale).await.expect_err("the nonce is used"));
    assert_eq!(error, InvalidTxError::InvalidNonce { tx_nonce: nonce, ak_nonce: nonce });

    let huge = chain.sign_with(&alice, u64::MAX, &bob.id, vec![transfer(near(1))]).await;
    let error = invalid(chain.send(huge).await.expect_err("the nonce is too large"));
    assert!(matches!(error, InvalidTxError::NonceTooLarge { tx_nonce: u64::MAX, .. }), "{error:?}");

    let thief = User::pretend(&alice.id, SecretKey::from_seed(KeyType::ED25519, "thief"));
    let error = chain.refused(&thief, &bob.id, vec![transfer(near(1))]).await;
    assert!(
        matches!(
            error,
            InvalidTxError::InvalidAccessKeyError(InvalidAccessKeyError::AccessKeyNotFound { .. })
        ),
        "{error:?}"
    );

    let nobody = User::pretend(&id("nobody.near"), alice.key.clone());
    let error = chain.refused(&nobody, &bob.id, vec![transfer(near(1))]).await;
    assert_eq!(error, InvalidTxError::SignerDoesNotExist { signer_id: id("nobody.near") });

    let foreign = CryptoHash::hash_bytes(b"no block");
    let foreign = signed(&alice, nonce + 10, &bob.id, vec![transfer(near(1))], foreign);
    assert_eq!(invalid(chain.send(foreign).await.expect_err("expired")), InvalidTxError::Expired);

    let other = chain.sign(&bob, &alice.id, vec![transfer(near(1))]).await.signature;
    let mut forged = chain.sign(&alice, &bob.id, vec![transfer(near(1))]).await;
    forged.signature = other;
    let error = invalid(chain.send(forged).await.expect_err("the signature is wrong"));
    assert_eq!(error, InvalidTxError::InvalidSignature);

    // None of this cost anything.
    assert_eq!(chain.balance(&alice.id).await, near(100).as_yoctonear());
    assert_eq!(chain.balance(&bob.id).await, near(100).as_yoctonear());
}

#[tokio::test]
async fn a_transaction_expires_after_a_hundred_blocks() {
    // Blocks are made only when asked for, once those have passed that make the users final.
    let config = Config { block_time: Duration::from_secs(3_600), ..Config::default() };
    let chain = Chain::with(config).await;
    let (alice, bob) = (chain.user().await, chain.user().await);
    for _ in 0..10 {
        chain.fast_forward(1).await;
    }
    let (height, block) = chain.head().await;
    let last = chain.sign(&alice, &bob.id, vec![transfer(near(1))]).await;
    let late = chain.sign(&alice, &bob.id, vec![transfer(near(1))]).await;
    assert_eq!(last.transaction.block_hash(), &block, "nothing happened meanwhile");
    // The block before the transaction's may be a hundred heights above the one it names.
    for _ in 0..100 {
        chain.fast_forward(1).await;
    }
    assert_eq!(chain.head().await.0, height + 100);
    succeeded(&outcome(chain.send(last).await.expect("still valid")));
    assert_eq!(invalid(chain.send(late).await.expect_err("expired")), InvalidTxError::Expired);
}

#[tokio::test]
async fn a_transaction_sent_twice_runs_once() {
    let chain = Chain::start().await;
    let (alice, bob) = (chain.user().await, chain.user().await);
    let transaction = chain.sign(&alice, &bob.id, vec![transfer(near(1))]).await;
    let (first, second) = tokio::join!(chain.send(transaction.clone()), chain.send(transaction.clone()));
    let third = chain.send(transaction).await;
    for response in [first, second, third] {
        succeeded(&outcome(response.expect("known")));
    }
    assert_eq!(chain.balance(&bob.id).await, near(101).as_yoctonear());
}

#[tokio::test]
async fn accounts_are_created_by_their_parents_only() {
    let chain = Chain::start().await;
    let alice = chain.user_called("alice.near").await;
    let key = SecretKey::from_seed(KeyType::ED25519, "child");
    let actions = || vec![create(), full_key(&key.public_key()), transfer(near(1))];

    let child = id("child.alice.near");
    let before = chain.balance(&alice.id).await;
    let outcome = chain.act(&alice, &child, actions()).await;
    succeeded(&outcome);
    assert_eq!(chain.balance(&child).await, near(1).as_yoctonear());
    // Creating an account burns at least 0.007 NEAR.
    assert!(burnt(&outcome) >= 7 * near(1).as_yoctonear() / 1_000, "{}", burnt(&outcome));
    let paid = before - chain.balance(&alice.id).await;
    assert_eq!(paid, near(1).as_yoctonear() + burnt(&outcome));
    assert_eq!(chain.account(&child).await.storage_usage, 182);

    let again = failed(&chain.act(&alice, &child, actions()).await);
    assert_eq!(again, ActionErrorKind::AccountAlreadyExists { account_id: child.clone() });
    let foreign = failed(&chain.act(&alice, &id("child.bob.near"), actions()).await);
    assert!(matches!(foreign, ActionErrorKind::CreateAccountNotAllowed { .. }), "{foreign:?}");
    let top = failed(&chain.act(&alice, &id("short"), actions()).await);
    assert!(matches!(top, ActionErrorKind::CreateAccountOnlyByRegistrar { .. }), "{top:?}");
    let missing = failed(&chain.act(&alice, &id("missing.near"), vec![transfer(near(1))]).await);
    assert_eq!(missing, ActionErrorKind::AccountDoesNotExist { account_id: id("missing.near") });

    // Only the child itself may delete itself.
    let delete = || DeleteAccountAction { beneficiary_id: alice.id.clone() }.into();
    let denied = failed(&chain.act(&alice, &child, vec![delete()]).await);
    assert!(matches!(denied, ActionErrorKind::ActorNoPermission { .. }), "{denied:?}");
    let signer = chain.sign_in(child.clone(), key).await;
    let before = chain.balance(&alice.id).await;
    succeeded(&chain.act(&signer, &child, vec![delete()]).await);
    assert!(chain.find_account(&child).await.is_none());
    assert!(chain.balance(&alice.id).await > before + near(1).as_yoctonear() * 99 / 100);
}

#[tokio::test]
async fn top_level_names_come_from_the_registrar() {
    let chain = Chain::start().await;
    let (alice, registrar) = (chain.user().await, chain.user_called("registrar").await);
    let name = id("short");
    let actions = vec![create(), full_key(&alice.key.public_key()), transfer(near(1))];
    let outcome = chain.act(&alice, &name, actions.clone()).await;
    let ActionErrorKind::CreateAccountOnlyByRegistrar { registrar_account_id, .. } = failed(&outcome) else {
        panic!("unexpected {outcome:?}");
    };
    assert_eq!(registrar_account_id, registrar.id);
    assert!(chain.find_account(&name).await.is_none());
    succeeded(&chain.act(&registrar, &name, actions).await);
    assert_eq!(chain.account(&name).await.amount, near(1));
}

#[tokio::test]
async fn a_transfer_creates_the_account_of_a_public_key() {
    let chain = Chain::start().await;
    let alice = chain.user().await;
    let key = SecretKey::from_seed(KeyType::ED25519, "implicit");
    let name = hex(key.public_key().key_data());
    succeeded(&chain.act(&alice, &id(&name), vec![transfer(near(2))]).await);
    let implicit = chain.sign_in(id(&name), key).await;
    succeeded(&chain.act(&implicit, &alice.id, vec![transfer(near(1))]).await);
    let error = failed(&chain.act(&alice, &id(&hex(&[7; 32])), vec![create(), transfer(near(1))]).await);
    assert!(matches!(error, ActionErrorKind::OnlyImplicitAccountCreationAllowed { .. }), "{error:?}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_failed_transfer_returns_the_deposit() {
    let chain = Chain::start().await;
    let alice = chain.user().await;
    let outcome = chain.act(&alice, &id("missing.near"), vec![transfer(near(5))]).await;
    failed(&outcome);
    assert_eq!(chain.balance(&alice.id).await, near(100).as_yoctonear() - burnt(&outcome));
}

#[tokio::test]
async fn keys_are_added_and_removed() {
    let chain = Chain::start().await;
    let alice = chain.user().await;
    let key = SecretKey::from_seed(KeyType::ED25519, "second").public_key();
    let storage = chain.account(&alice.id).await.storage_usage;
    succeeded(&chain.act(&alice, &alice.id, vec![full_key(&key)]).await);
    assert_eq!(chain.account(&alice.id).await.storage_usage, storage + 82);
    assert_eq!(chain.keys(&alice.id).await.len(), 2);
    let again = failed(&chain.act(&alice, &alice.id, vec![full_key(&key)]).await);
    assert!(matches!(again, ActionErrorKind::AddKeyAlreadyExists { .. }), "{again:?}");
    let delete = || Action::DeleteKey(Box::new(DeleteKeyAction { public_key: key.clone() }));
    succeeded(&chain.act(&alice, &alice.id, vec![delete()]).await);
    assert_eq!(chain.account(&alice.id).await.storage_usage, storage);
    let gone = failed(&chain.act(&alice, &alice.id, vec![delete()]).await);
    assert!(matches!(gone, ActionErrorKind::DeleteKeyDoesNotExist { .. }), "{gone:?}");
}

#[tokio::test]
async fn a_call_key_is_bound_to_its_contract_methods_and_allowance() {
    let chain = Chain::start().await;
    let contract = chain.deploy("contract.near", crate::contracts::counter()).await;
    let alice = chain.user().await;
    let key = SecretKey::from_seed(KeyType::ED25519, "call key");
    let allowance = near(1);
    let access_key = AccessKey {
        nonce: 0,
        permission: AccessKeyPermission::FunctionCall(FunctionCallPermission {
            allowance: Some(allowance),
            receiver_id: contract.id.to_string(),
            method_names: vec!["add".to_owned()],
        }),
    };
    succeeded(&chain.act(&alice, &alice.id, vec![add_key(&key.public_key(), access_key)]).await);
    let caller = chain.sign_in(alice.id.clone(), key.clone()).await;

    let outcome = chain.act(&caller, &contract.id, vec![call("add", b"", 30, Balance::ZERO)]).await;
    succeeded(&outcome);
    // What was not burnt returned to the allowance too.
    let left = chain.allowance(&alice.id, &key.public_key()).await;
    assert_eq!(left, Some(allowance.as_yoctonear() - burnt(&outcome)));

    let refused = async |to, actions| match chain.refused(&caller, to, actions).await {
        InvalidTxError::InvalidAccessKeyError(error) => error,
        other => panic!("unexpected {other:?}"),
    };
    let error = refused(&contract.id, vec![call("get", b"", 30, Balance::ZERO)]).await;
    assert!(matches!(error, InvalidAccessKeyError::MethodNameMismatch { .. }), "{error:?}");
    let error = refused(&alice.id, vec![call("add", b"", 30, Balance::ZERO)]).await;
    assert!(matches!(error, InvalidAccessKeyError::ReceiverMismatch { .. }), "{error:?}");
    let error = refused(&contract.id, vec![call("add", b"", 30, Balance::from_yoctonear(1))]).await;
    assert_eq!(error, InvalidAccessKeyError::DepositWithFunctionCall);
    let error = refused(&contract.id, vec![transfer(Balance::from_yoctonear(1))]).await;
    assert_eq!(error, InvalidAccessKeyError::RequiresFullAccess);
    // Gas is bought at ten times the price of the chain: 1,000 Tgas take 1 NEAR.
    let error = refused(&contract.id, vec![call("add", b"", 1_000, Balance::ZERO)]).await;
    assert!(matches!(error, InvalidAccessKeyError::NotEnoughAllowance { .. }), "{error:?}");
}

#[tokio::test]
async fn a_relayer_pays_for_another_accounts_actions() {
    let chain = Chain::start().await;
    let (alice, relayer) = (chain.user().await, chain.user().await);
    let contract = chain.deploy("contract.near", crate::contracts::counter()).await;
    let (height, _) = chain.head().await;
    let signer = near_crypto::InMemorySigner::from_secret_key(alice.id.clone(), alice.key.clone());
    let inner = call("add", b"", 30, near(1)).try_into().expect("not a delegate action");
    let delegate = DelegateAction {
        sender_id: alice.id.clone(),
        receiver_id: contract.id.clone(),
        actions: vec![inner],
        nonce: chain.nonce(&alice.id, &alice.key.public_key()).await + 1,
        max_block_height: height + 100,
        public_key: alice.key.public_key(),
    };
    let signed = SignedDelegateAction::sign(&signer, delegate);
    let outcome = chain.act(&relayer, &alice.id, vec![signed.clone().into()]).await;
    succeeded(&outcome);
    assert_eq!(chain.view(&contract.id, "get", b"").await, Ok(vec![1]));
    assert_eq!(chain.balance(&alice.id).await, near(100).as_yoctonear());
    let left = near(99).as_yoctonear() - burnt(&outcome);
    assert_eq!(chain.balance(&relayer.id).await, left);

    let replay = failed(&chain.act(&relayer, &alice.id, vec![signed.into()]).await);
    assert!(matches!(replay, ActionErrorKind::DelegateActionInvalidNonce { .. }), "{replay:?}");
}

#[tokio::test]
async fn what_is_left_out_is_refused_by_name() {
    let chain = Chain::start().await;
    let alice = chain.user().await;
    let stake = StakeAction { stake: near(10), public_key: alice.key.public_key() };
    let error = chain.refused(&alice, &alice.id, vec![stake.into()]).await;
    let InvalidTxError::ActionsValidation(ActionsValidationError::UnsupportedProtocolFeature {
        protocol_feature,
        ..
    }) = error
    else {
        panic!("unexpected {error:?}")
    };
    assert!(protocol_feature.contains("staking"), "{protocol_feature}");
}
