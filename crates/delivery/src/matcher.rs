//! Which subscriptions of a lane want a topic: O(matching), whatever the number of subscriptions. Pure.
//!
//! Literal topics stand in a map, patterns with wildcards in a trie by token; the answer for each topic that was asked for is
//! remembered until the set of subscriptions changes. Types are not its business.

use std::collections::HashMap;
use std::rc::Rc;

use hookcast_core::model::topic::OWN_TOKEN;
use hookcast_core::model::{PatternList, Topic};

/// Most topics whose answer is remembered.
const REMEMBERED_MAX: usize = 16_384;

/// A subscription's place in its lane.
pub type Place = usize;

/// The index of a lane's subscriptions by topic.
#[derive(Debug, Default)]
pub struct Matcher {
    literal: HashMap<Topic, Vec<Place>>,
    root: Node,
    remembered: HashMap<Topic, Rc<[Place]>>,
}

#[derive(Debug, Default)]
struct Node {
    tokens: HashMap<Box<str>, Node>,
    any: Option<Box<Node>>,
    /// Patterns that end here.
    here: Vec<Place>,
    /// Patterns that end here with `**`.
    rest: Vec<Place>,
}

impl Matcher {
    /// Adds a subscription; one place is added once.
    pub fn insert(&mut self, place: Place, patterns: &PatternList) {
        self.remembered.clear();
        for pattern in patterns.patterns() {
            match pattern.literal() {
                Some(topic) => self.literal.entry(topic).or_default().push(place),
                None => self.root.places(pattern.as_str()).push(place),
            }
        }
    }

    /// Removes a subscription that was added with these patterns.
    pub fn remove(&mut self, place: Place, patterns: &PatternList) {
        self.remembered.clear();
        for pattern in patterns.patterns() {
            if let Some(topic) = pattern.literal() {
                if let Some(places) = self.literal.get_mut(&topic) {
                    places.retain(|other| *other != place);
                    if places.is_empty() {
                        self.literal.remove(&topic);
                    }
                }
            } else {
                self.root.forget(&pattern.as_str().split('.').collect::<Vec<_>>(), place);
            }
        }
    }

    /// The places that want `topic`, each once, rising.
    pub fn matching(&mut self, topic: &Topic) -> Rc<[Place]> {
        if let Some(places) = self.remembered.get(topic) {
            return Rc::clone(places);
        }
        let mut places = self.literal.get(topic).cloned().unwrap_or_default();
        let tokens: Vec<&str> = topic.as_str().split('.').collect();
        self.root.collect(&tokens, tokens[0] == OWN_TOKEN, &mut places);
        places.sort_unstable();
        places.dedup();
        let places: Rc<[Place]> = places.into();
        if self.remembered.len() >= REMEMBERED_MAX {
            self.remembered.clear();
        }
        self.remembered.insert(topic.clone(), Rc::clone(&places));
        places
    }
}

impl Node {
    fn places(&mut self, pattern: &str) -> &mut Vec<Place> {
        let mut node = self;
        for token in pattern.split('.') {
            node = match token {
                "**" => return &mut node.rest,
                "*" => node.any.get_or_insert_default(),
                literal => node.tokens.entry(literal.into()).or_default(),
            };
        }
        &mut node.here
    }

    /// Takes a place off a pattern, and the nodes that nobody needs any more with it.
    fn forget(&mut self, tokens: &[&str], place: Place) {
        match tokens.split_first() {
            None => self.here.retain(|other| *other != place),
            Some((&"**", _)) => self.rest.retain(|other| *other != place),
            Some((&"*", rest)) => {
                if let Some(any) = &mut self.any {
                    any.forget(rest, place);
                }
                self.any.take_if(|any| any.is_empty());
            }
            Some((&literal, rest)) => {
                let Some(node) = self.tokens.get_mut(literal) else { return };
                node.forget(rest, place);
                if node.is_empty() {
                    self.tokens.remove(literal);
                }
            }
        }
        if self.tokens.is_empty() {
            // An empty map may hold memory.
            self.tokens = HashMap::new();
        }
    }

    fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.any.is_none() && self.here.is_empty() && self.rest.is_empty()
    }

    /// `own`: the topic is the relay's own and no wildcard may stand for this token.
    fn collect(&self, tokens: &[&str], own: bool, places: &mut Vec<Place>) {
        let Some((token, rest)) = tokens.split_first() else {
            places.extend_from_slice(&self.here);
            return;
        };
        if !own {
            places.extend_from_slice(&self.rest);
            if let Some(any) = &self.any {
                any.collect(rest, false, places);
            }
        }
        if let Some(node) = self.tokens.get(*token) {
            node.collect(rest, false, places);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_agrees_with_asking_every_subscription(
            lists in prop::collection::vec(prop::collection::vec("(a|b|hookcast|\\*)(\\.(a|b|\\*)){0,2}(\\.\\*\\*)?", 1..3), 1..12),
            topics in prop::collection::vec("(a|b|hookcast)(\\.(a|b)){0,3}", 1..12),
            removed in any::<prop::sample::Index>(),
        ) {
            let lists: Vec<PatternList> = lists.iter().map(|list| list.join(",").parse().unwrap()).collect();
            let mut matcher = Matcher::default();
            for (place, list) in lists.iter().enumerate() { matcher.insert(place, list); }
            let removed = removed.index(lists.len());
            let ask = |matcher: &mut Matcher, without: Option<usize>| -> Result<(), TestCaseError> {
                for topic in &topics {
                    let topic = Topic::parse(topic).unwrap();
                    let expected: Vec<Place> = (0..lists.len())
                        .filter(|place| Some(*place) != without && lists[*place].matches(topic.as_str()))
                        .collect();
                    prop_assert_eq!(&*matcher.matching(&topic), &expected[..]);
                }
                Ok(())
            };
            ask(&mut matcher, None)?;
            matcher.remove(removed, &lists[removed]);
            ask(&mut matcher, Some(removed))?;
            for (place, list) in lists.iter().enumerate() { matcher.remove(place, list); }
            prop_assert!(matcher.root.is_empty() && matcher.literal.is_empty(), "nothing is left behind: {:?}", matcher);
        }
    }
}
