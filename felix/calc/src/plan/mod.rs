//! From one table to another in three transactions: add, switch, remove.
//!
//! Each is atomic in the kernel, yet a packet in flight looks its sets up one after the other and each
//! lookup sees the table of its own moment. So nothing may be added, brought into use and taken away in
//! one transaction (policy-compiler.md §6, measured there): what is new is complete before anything refers
//! to it, and what is old goes only after nothing refers to it.

use serde::Serialize;

use crate::table::{Base, Data, DataType, Element, KeyType, Rule};

/// Three transactions, to be committed in this order. Between any two the kernel's table treats every
/// packet as the old table or as the new one does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub add: Transaction,
    pub switch: Transaction,
    pub remove: Transaction,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.transactions().iter().all(|transaction| transaction.0.is_empty())
    }

    pub fn transactions(&self) -> [&Transaction; 3] {
        [&self.add, &self.switch, &self.remove]
    }
}

/// One netlink batch: all of it or nothing. The order is the kernel's: a target exists before what refers
/// to it, a reference goes before its target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Transaction(pub Vec<Operation>);

/// What the kernel is told; each maps to one or few netlink messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Operation {
    /// An empty set or map. EEXIST if the name is taken by another shape.
    AddSet { name: String, shape: SetShape },
    /// A chain without rules; a base chain when `base` is present.
    AddChain { name: String, base: Option<Base> },
    /// Elements that the set does not hold (an element with other data: delete it earlier in the batch).
    AddElements { set: String, elements: Vec<(Element, Option<Data>)> },
    /// Elements that the set holds.
    DeleteElements { set: String, elements: Vec<Element> },
    /// Flush the chain and add these rules. Empty: flush only, which drops the chain's references.
    ReplaceRules { chain: String, rules: Vec<Rule> },
    /// A set to which no rule refers.
    DeleteSet { name: String },
    /// A chain without rules, to which no rule and no element refers.
    DeleteChain { name: String },
}

/// A set without its elements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SetShape {
    pub key: Vec<KeyType>,
    pub interval: bool,
    pub data: Option<DataType>,
    pub counter: bool,
}
