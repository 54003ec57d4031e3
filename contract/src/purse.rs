//! What accounts may withdraw: nodes in their record, others in a purse of their own.

use por_types::{AccountId, Yocto};

use crate::Contract;
use crate::books::Part;
use crate::config::PURSE_STORAGE;
use crate::fail::OrStop;
use crate::store::{self, Table};

impl Contract {
    pub(crate) fn purse(account: &AccountId) -> Option<Yocto> {
        store::read(Table::Purses, account.as_bytes())
    }

    /// Makes `amount`, which the books count as `from`, withdrawable for `account`.
    pub(crate) fn credit(&mut self, account: &AccountId, amount: Yocto, from: Part) {
        if amount.is_zero() {
            return;
        }
        if let Some(index) = Self::node_index(account) {
            self.books.transfer(from, Part::Withdrawable, amount);
            return self.with_node(index, |node, _| node.credit(amount));
        }
        let (held, amount) = match Self::purse(account) {
            Some(held) => (held, amount),
            None if amount <= PURSE_STORAGE => return self.books.transfer(from, Part::Treasury, amount),
            None => {
                self.books.transfer(from, Part::Storage, PURSE_STORAGE);
                (Yocto::ZERO, amount.checked_sub(PURSE_STORAGE).or_stop())
            }
        };
        self.books.transfer(from, Part::Withdrawable, amount);
        store::write(Table::Purses, account.as_bytes(), &held.checked_add(amount).or_stop());
    }

    /// What a purse holds, with its storage once it is emptied.
    pub(crate) fn purse_available(account: &AccountId) -> Yocto {
        Self::purse(account).map_or(Yocto::ZERO, |held| held.checked_add(PURSE_STORAGE).or_stop())
    }

    /// Takes up to `left` out of the purse; the storage of its record goes with the rest of it.
    pub(crate) fn take_from_purse(&mut self, account: &AccountId, left: &mut Yocto) {
        let Some(held) = Self::purse(account) else { return };
        let taken = held.min(*left);
        *left = left.checked_sub(taken).or_stop();
        self.books.debit(Part::Withdrawable, taken);
        let rest = held.checked_sub(taken).or_stop();
        if rest.is_zero() && *left >= PURSE_STORAGE {
            *left = left.checked_sub(PURSE_STORAGE).or_stop();
            self.books.debit(Part::Storage, PURSE_STORAGE);
            store::remove(Table::Purses, account.as_bytes());
        } else {
            store::write(Table::Purses, account.as_bytes(), &rest);
        }
    }
}
