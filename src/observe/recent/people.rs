//! Who stood behind the requests of a ring: each of them once, however many requests are theirs.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::ring::{EACH, small};
use crate::access::Asker;
use crate::identity::Identity;

/// Those who stand behind the requests of a ring, and what they take.
#[derive(Debug, Default)]
pub(super) struct People {
    all: Vec<Option<Person>>,
    /// Places in `all` that nobody has.
    free: Vec<u32>,
    /// By where an identity stands in memory, the place of who came last with one that falls here. It may be someone else by
    /// now, or nobody; and who is found no more is taken in, and weighed, a second time.
    hints: Vec<u32>,
    bytes: usize,
}

#[derive(Debug)]
struct Person {
    identity: Arc<Identity>,
    key_routes: Option<Arc<[String]>>,
    /// How many requests are theirs.
    requests: u32,
    bytes: usize,
}

impl People {
    /// What each person takes beside what [`weight`] says.
    pub(super) const EACH: usize = size_of::<Option<Person>>() + size_of::<u32>();

    /// What it takes for nobody.
    pub(super) const HINTS: usize = PLACES * size_of::<u32>();

    /// Adds a request of who stands behind `asker`, if they are known.
    pub(super) fn again(&mut self, identity: &Arc<Identity>, asker: &Asker) -> Option<u32> {
        let number = *self.hints.get(place(identity))?;
        let person = self.all.get_mut(number as usize)?.as_mut()?;
        let has_same_key = match (&person.key_routes, &asker.key_routes) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, Some(_)) | (Some(_), None) => false,
        };
        if !Arc::ptr_eq(&person.identity, identity) || !has_same_key {
            return None;
        }
        person.requests += 1;
        Some(number)
    }

    /// Takes in someone new, of this weight, with one request.
    pub(super) fn add(&mut self, identity: &Arc<Identity>, asker: &Asker, bytes: usize) -> u32 {
        let key_routes = asker.key_routes.clone();
        let person = Person { identity: Arc::clone(identity), key_routes, requests: 1, bytes };
        self.bytes += bytes;
        if self.hints.is_empty() {
            self.all.reserve_exact(EACH);
            self.free.reserve_exact(EACH);
            self.hints = vec![0; PLACES];
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.all.push(None);
            small(self.all.len() - 1)
        });
        if let Some(place) = self.all.get_mut(number as usize) {
            *place = Some(person);
        }
        if let Some(hint) = self.hints.get_mut(place(identity)) {
            *hint = number;
        }
        number
    }

    /// One request of the person called `number` is forgotten.
    pub(super) fn leave(&mut self, number: u32) {
        let Some(place) = self.all.get_mut(number as usize) else { return };
        let Some(person) = place else { return };
        person.requests -= 1;
        if person.requests == 0 {
            self.bytes -= person.bytes;
            *place = None;
            self.free.push(number);
        }
    }

    /// Who is called `number`.
    pub(super) fn find(&self, number: u32) -> (Option<Arc<Identity>>, Option<Arc<[String]>>) {
        match self.all.get(number as usize) {
            Some(Some(person)) => (Some(Arc::clone(&person.identity)), person.key_routes.clone()),
            Some(None) | None => (None, None),
        }
    }

    /// What they keep alive, in bytes, about.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Where an identity falls.
pub(super) fn place(identity: &Arc<Identity>) -> usize {
    // Blocks of memory are apart by multiples of a few sizes, which the multiplication spreads.
    let mixed = (Arc::as_ptr(identity) as usize as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize % PLACES
}

/// What someone keeps alive, in bytes, about.
pub(super) fn weight(identity: &Identity, asker: &Asker) -> usize {
    let key_routes = asker.key_routes.as_deref().unwrap_or_default();
    let lists = [&*identity.scopes, &*identity.methods, &*identity.profile.groups, key_routes];
    let texts: usize = lists.into_iter().flatten().map(|text| size_of::<String>() + text.len()).sum();
    size_of::<Identity>() + texts + weight_of_members(&identity.claims)
}

fn weight_of_members(members: &Map<String, Value>) -> usize {
    members.iter().map(|(name, value)| size_of::<String>() + name.len() + weight_of_value(value)).sum()
}

fn weight_of_value(value: &Value) -> usize {
    let own = size_of::<Value>();
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => own,
        Value::String(text) => own + text.len(),
        Value::Array(members) => own + members.iter().map(weight_of_value).sum::<usize>(),
        Value::Object(members) => own + weight_of_members(members),
    }
}

/// More than requests in a ring, so that two seldom fall on one.
const PLACES: usize = 4096;
