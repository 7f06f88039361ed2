//! Who made which token, and what ends with one. Pure.
//!
//! A maker is a present token or the operator. Ids are never given twice, so what a maker is today it stays; only what earlier
//! builds stored, when ids could be chosen and taken again, is judged once.

use std::collections::HashSet;

use crate::auth::{Scope, TokenEntry};
use hookcast_core::model::TopicPattern;
use hookcast_core::model::administration::{Maker, TokenLimits, TokenRecord};

/// Makers of earlier builds that stood for nobody's token, whoever has such an id.
const WORDS: [&str; 4] = ["local", ADMIN, "config", Maker::OPERATOR];
/// The name under which the token of the environment is known.
const ADMIN: &str = "admin";

/// Who makes what a token makes; `None` where none is asked for.
pub(super) fn maker(token: Option<&TokenEntry>) -> Maker {
    match token {
        Some(TokenEntry { id: Some(id), .. }) => Maker::Token(id.clone()),
        // Whoever knows the variable runs the relay, and it may be changed at any time.
        Some(entry) if entry.name != ADMIN => Maker::Declared(entry.name.clone()),
        _ => Maker::Operator,
    }
}

/// Gives tokens whose maker is not there any more, or never was, to the operator; those that are not as they were stored.
pub(super) fn settle(tokens: &mut [TokenRecord], declared: &[TokenEntry]) -> Vec<TokenRecord> {
    let judged: Vec<Maker> = tokens.iter().map(|token| judge(token, tokens, declared)).collect();
    let mut changed = Vec::new();
    for (token, maker) in tokens.iter_mut().zip(judged) {
        if token.maker.as_ref() != Some(&maker) {
            *token = token.clone().made_by(maker);
            changed.push(token.clone());
        }
    }
    changed
}

fn judge(token: &TokenRecord, tokens: &[TokenRecord], declared: &[TokenEntry]) -> Maker {
    let is_declared = |name: &str| name != ADMIN && declared.iter().any(|entry| entry.name == name);
    let named = |id: &str| tokens.iter().find(|other| other.id == id);
    match &token.maker {
        Some(Maker::Token(id)) if named(id).is_some() => Maker::Token(id.clone()),
        Some(Maker::Declared(name)) if is_declared(name) => Maker::Declared(name.clone()),
        Some(_) => Maker::Operator,
        None if WORDS.contains(&token.made_by.as_str()) => Maker::Operator,
        None => match (named(&token.made_by), is_declared(&token.made_by)) {
            (Some(maker), false) if may_have_made(maker, token) => Maker::Token(maker.id.clone()),
            (None, true) => Maker::Declared(token.made_by.clone()),
            // Two of one name, or one that took the name later: nobody can tell.
            _ => Maker::Operator,
        },
    }
}

/// Whether a token was there before another and could do all that the other can.
fn may_have_made(maker: &TokenRecord, token: &TokenRecord) -> bool {
    let patterns = |record: &TokenRecord| {
        record.topics.iter().map(|text| TopicPattern::parse(text).ok()).collect::<Option<Vec<_>>>().unwrap_or_default()
    };
    let (reach, wanted) = (patterns(maker), patterns(token));
    let reaches = maker.topics.is_empty()
        || (!wanted.is_empty() && wanted.iter().all(|pattern| reach.iter().any(|wider| wider.covers(pattern))));
    let scopes = |record: &TokenRecord, word: &str| record.scopes.iter().any(|scope| scope == word);
    maker.id != token.id
        && maker.created_at <= token.created_at
        && scopes(maker, Scope::Manage.word())
        && token.scopes.iter().all(|scope| scopes(maker, scope))
        && maker.limits == TokenLimits::default()
        && reaches
        && maker.expires_at.is_none_or(|end| token.expires_at.is_some_and(|earlier| earlier <= end))
}

/// What a revocation does.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Revocation {
    /// Ids of the tokens that end, the one that was named first.
    pub(super) gone: Vec<String>,
    /// Tokens that have another maker afterwards.
    pub(super) changed: Vec<TokenRecord>,
}

/// Ends a token and everything below it.
pub(super) fn cascade(tokens: &[TokenRecord], id: &str) -> Revocation {
    let mut gone = vec![id.to_owned()];
    let mut seen = HashSet::from([id]);
    let mut next = 0;
    while next < gone.len() {
        let below = tokens.iter().filter(|token| token.is_made_by(&gone[next]) && seen.insert(&token.id));
        let below: Vec<String> = below.map(|token| token.id.clone()).collect();
        gone.extend(below);
        next += 1;
    }
    Revocation { gone, changed: Vec::new() }
}

/// Ends a token alone: `keeper` becomes the maker of what it made. What is above the keeper or the keeper itself, or all of it
/// when the keeper is the one that ends, becomes the ended one's maker's, so that nobody is below itself.
pub(super) fn alone(tokens: &[TokenRecord], id: &str, keeper: &Maker) -> Revocation {
    let ended = tokens.iter().find(|token| token.id == id);
    // A build before ours could store a token as its own maker; what ends is nobody's.
    let above = ended.and_then(|token| token.maker.clone()).filter(|above| *above != Maker::Token(id.to_owned()));
    let above = above.unwrap_or_default();
    let line = line_of(tokens, keeper);
    let children = tokens.iter().filter(|token| token.id != id && token.is_made_by(id));
    let changed = children.map(|child| {
        let stays_above = *keeper == Maker::Token(id.to_owned()) || line.contains(&child.id.as_str());
        // In a ring of earlier builds that may be itself, or below it.
        let above = if line_of(tokens, &above).contains(&child.id.as_str()) { &Maker::Operator } else { &above };
        child.clone().made_by(if stays_above { above.clone() } else { keeper.clone() })
    });
    Revocation { gone: vec![id.to_owned()], changed: changed.collect() }
}

/// Ids of a token, its maker, that one's maker and so on.
fn line_of<'a>(tokens: &'a [TokenRecord], from: &Maker) -> Vec<&'a str> {
    let mut line: Vec<&str> = Vec::new();
    let mut next = Some(from);
    while let Some(Maker::Token(id)) = next {
        let Some(token) = tokens.iter().find(|token| token.id == *id && !line.contains(&token.id.as_str())) else { break };
        line.push(&token.id);
        next = token.maker.as_ref();
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use hookcast_core::clock::Timestamp;

    fn token(id: &str, maker: Option<Maker>) -> TokenRecord {
        TokenRecord {
            id: id.to_owned(),
            name: id.to_owned(),
            sha256: String::new(),
            scopes: vec!["manage".to_owned(), "read".to_owned()],
            topics: vec!["acme.**".to_owned()],
            limits: TokenLimits::default(),
            made_by: maker.as_ref().map_or("", Maker::as_str).to_owned(),
            maker,
            created_at: Timestamp(100),
            expires_at: None,
        }
    }

    fn earlier(id: &str, made_by: &str) -> TokenRecord {
        TokenRecord { made_by: made_by.to_owned(), ..token(id, None) }
    }

    #[test]
    fn a_maker_of_an_earlier_build_was_there_first_and_could_do_as_much() {
        let judged = |maker: TokenRecord, child: TokenRecord| {
            let mut tokens = [maker, child];
            assert_eq!(settle(&mut tokens, &[]).len(), 2);
            assert_eq!(settle(&mut tokens, &[]), [], "once");
            tokens[1].made_by.clone()
        };
        let child = || earlier("child", "m");
        assert_eq!(judged(earlier("m", "x"), child()), "m");
        for maker in [
            TokenRecord { created_at: Timestamp(101), ..earlier("m", "x") },
            TokenRecord { scopes: vec!["manage".to_owned()], ..earlier("m", "x") },
            TokenRecord { scopes: vec!["read".to_owned()], ..earlier("m", "x") },
            TokenRecord { topics: vec!["acme.*".to_owned()], ..earlier("m", "x") },
            TokenRecord { limits: TokenLimits { sources: Some(1), ..TokenLimits::default() }, ..earlier("m", "x") },
            TokenRecord { expires_at: Some(Timestamp(900)), ..earlier("m", "x") },
        ] {
            assert_eq!(judged(maker.clone(), child()), Maker::OPERATOR, "{maker:?}");
        }
        let everything = TokenRecord { topics: Vec::new(), ..child() };
        assert_eq!(judged(earlier("m", "x"), everything.clone()), Maker::OPERATOR);
        assert_eq!(judged(TokenRecord { topics: Vec::new(), ..earlier("m", "x") }, everything), "m");
    }

    /// Makers as the present build stores them: any token, also one that is not there, or one of the configuration.
    fn forest() -> impl Strategy<Value = Vec<TokenRecord>> {
        let maker = prop_oneof![
            Just(Maker::Operator),
            (0..12_u8).prop_map(|n| Maker::Token(format!("t{n}"))),
            Just(Maker::Declared("ops".to_owned())),
        ];
        prop::collection::vec(maker, 1..10).prop_map(|makers| {
            let one = |(n, maker): (usize, Maker)| token(&format!("t{n}"), Some(maker));
            makers.into_iter().enumerate().map(one).collect()
        })
    }

    #[test]
    fn what_a_token_made_that_made_itself_is_not_its_own_afterwards() {
        let itself = Maker::Token("t0".to_owned());
        let tokens = vec![token("t0", Some(itself.clone())), token("t1", Some(itself.clone()))];
        for keeper in [itself, Maker::Token("t1".to_owned()), Maker::Operator] {
            let left = without(tokens.clone(), &alone(&tokens, "t0", &keeper));
            assert_eq!(left.iter().map(|token| token.maker.clone()).collect::<Vec<_>>(), [Some(Maker::Operator)], "{keeper:?}");
        }
    }

    fn without(mut tokens: Vec<TokenRecord>, revocation: &Revocation) -> Vec<TokenRecord> {
        tokens.retain(|token| !revocation.gone.contains(&token.id));
        for token in &mut tokens {
            if let Some(changed) = revocation.changed.iter().find(|changed| changed.id == token.id) {
                *token = changed.clone();
            }
        }
        tokens
    }

    proptest! {
        #[test]
        fn a_cascade_leaves_nothing_below_and_takes_nothing_beside(mut tokens in forest(), n in 0..10_usize) {
            settle(&mut tokens, &[]);
            let id = tokens[n % tokens.len()].id.clone();
            let revocation = cascade(&tokens, &id);
            prop_assert_eq!(&revocation.gone[0], &id);
            prop_assert_eq!(revocation.gone.iter().collect::<HashSet<_>>().len(), revocation.gone.len());
            for token in &tokens {
                let is_below = line_of(&tokens, &Maker::Token(token.id.clone())).contains(&id.as_str());
                prop_assert_eq!(revocation.gone.contains(&token.id), is_below, "{}", token.id);
            }
            let mut left = without(tokens, &revocation);
            prop_assert_eq!(settle(&mut left, &[]), []);
        }

        #[test]
        fn whoever_keeps_children_makes_no_ring_and_loses_none(mut tokens in forest(), n in 0..10_usize, k in 0..10_usize) {
            settle(&mut tokens, &[]);
            let rings = |tokens: &[TokenRecord]| {
                let is_in_one = |token: &&TokenRecord| {
                    token.maker.as_ref().is_some_and(|maker| line_of(tokens, maker).contains(&token.id.as_str()))
                };
                tokens.iter().filter(is_in_one).count()
            };
            let (id, keeper) = (tokens[n % tokens.len()].id.clone(), Maker::Token(tokens[k % tokens.len()].id.clone()));
            let had_rings = rings(&tokens);
            let revocation = alone(&tokens, &id, &keeper);
            prop_assert_eq!(&revocation.gone, std::slice::from_ref(&id));
            let count = tokens.len();
            let mut left = without(tokens, &revocation);
            prop_assert_eq!(left.len(), count - 1);
            prop_assert!(left.iter().all(|token| !token.is_made_by(&id)));
            prop_assert!(rings(&left) <= had_rings);
            prop_assert_eq!(settle(&mut left, &[]), []);
        }
    }
}
