//! Where the contract's money is. Every yocto that comes in, moves or goes out passes here,
//! so that the parts sum to the balance after every call (protocol section 7).

use borsh::{BorshDeserialize, BorshSerialize};
use near_sdk::env;
use por_types::Yocto;
use por_types::interface::{BooksView, code};

use crate::fail::{OrStop, require};

#[derive(Clone, Copy)]
pub enum Part {
    Storage,
    Deposits,
    Stakes,
    Bonds,
    Escrow,
    Treasury,
    Withdrawable,
}

#[derive(Clone, Default, BorshSerialize, BorshDeserialize)]
pub struct Books {
    storage: Yocto,
    deposits: Yocto,
    stakes: Yocto,
    bonds: Yocto,
    escrow: Yocto,
    treasury: Yocto,
    withdrawable: Yocto,
}

impl Books {
    /// Books of a contract that has `balance` for its storage and nothing else.
    pub fn new(balance: Yocto) -> Books {
        Books { storage: balance, ..Books::default() }
    }

    fn part(&mut self, part: Part) -> &mut Yocto {
        match part {
            Part::Storage => &mut self.storage,
            Part::Deposits => &mut self.deposits,
            Part::Stakes => &mut self.stakes,
            Part::Bonds => &mut self.bonds,
            Part::Escrow => &mut self.escrow,
            Part::Treasury => &mut self.treasury,
            Part::Withdrawable => &mut self.withdrawable,
        }
    }

    /// Money that the account received outside of [`Purse`] and owes again.
    pub fn credit(&mut self, part: Part, amount: Yocto) {
        let held = self.part(part);
        *held = held.checked_add(amount).or_stop();
    }

    /// Money that leaves the account.
    pub fn debit(&mut self, part: Part, amount: Yocto) {
        let held = self.part(part);
        *held = held.checked_sub(amount).or_stop();
    }

    pub fn transfer(&mut self, from: Part, to: Part, amount: Yocto) {
        self.debit(from, amount);
        self.credit(to, amount);
    }

    pub fn treasury(&self) -> Yocto {
        self.treasury
    }

    pub fn view(&self) -> BooksView {
        let parts = [
            self.storage,
            self.deposits,
            self.stakes,
            self.bonds,
            self.escrow,
            self.treasury,
            self.withdrawable,
        ];
        let owed = Yocto::checked_sum(parts).or_stop();
        let balance = Yocto(env::account_balance().as_yoctonear());
        BooksView {
            balance,
            storage: self.storage,
            deposits: self.deposits,
            stakes: self.stakes,
            bonds: self.bonds,
            escrow: self.escrow,
            treasury: self.treasury,
            withdrawable: self.withdrawable,
            surplus: balance.saturating_sub(owed),
        }
    }
}

/// The deposit attached to this call, to be spent completely.
pub struct Purse {
    left: Yocto,
    attached: Yocto,
}

impl Purse {
    pub fn attached() -> Purse {
        let attached = Yocto(env::attached_deposit().as_yoctonear());
        Purse { left: attached, attached }
    }

    /// Spends `amount` on `part`; stops if it was not attached.
    pub fn pay(&mut self, books: &mut Books, part: Part, amount: Yocto, purpose: &str) {
        require!(
            self.left >= amount,
            code::DEPOSIT,
            "{} yocto attached, of which {} are left for the {purpose} of {amount}; attach more",
            self.attached,
            self.left
        );
        self.left = self.left.checked_sub(amount).or_stop();
        books.credit(part, amount);
    }

    /// What is left, credited to `part`.
    pub fn rest(self, books: &mut Books, part: Part) -> Yocto {
        books.credit(part, self.left);
        self.left
    }
}
