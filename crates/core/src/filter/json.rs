//! JSON as values of CEL: read once from an event's bytes, texts borrowed from them, shared by everybody who judges it.
//!
//! The library's own lists and maps cost a hash and an allocation an entry and are copied whole by a loop; these are plain
//! vectors behind a count. Knows nothing of events and filters.

use std::sync::Arc;

use cel::ExecutionError;
use cel::common::traits::{Container, Indexer, Iterable, Iterator as ValIterator, Sizer};
use cel::common::types::{self, CelBool, CelDouble, CelInt, CelNull, CelString, CelUInt, Kind, Type};
use cel::common::value::{CowVal, Val};

use super::meter;
pub(super) use read::Document;

mod read;

/// Entries of an object from which on its keys are put in order.
const SORTED_FROM: usize = 16;

/// One value.
#[derive(Clone, Debug)]
pub(super) enum Node<'a> {
    Null(CelNull),
    Bool(CelBool),
    Int(CelInt),
    UInt(CelUInt),
    Double(CelDouble),
    Text(CelString<'a>),
    List(List<'a>),
    Map(Map<'a>),
}

impl<'a> Node<'a> {
    /// The value as the library handles it.
    pub(super) fn as_val<'b>(&'b self) -> &'b (dyn Val + 'a) {
        match self {
            Self::Null(value) => value,
            Self::Bool(value) => value,
            Self::Int(value) => value,
            Self::UInt(value) => value,
            Self::Double(value) => value,
            Self::Text(value) => value,
            Self::List(value) => value,
            Self::Map(value) => value,
        }
    }

    /// A text that borrows.
    pub(super) fn text(text: &'a str) -> Self {
        Self::Text(CelString::from(text))
    }

    /// Values in it, itself included.
    fn weight(&self) -> usize {
        match self {
            Self::List(list) => list.0.weight,
            Self::Map(map) => map.0.weight,
            _ => 1,
        }
    }

    /// What a loop has to copy when it takes this value, in steps: texts with escapes are not borrowed.
    fn copy_steps(&self) -> usize {
        match self {
            Self::Text(text) if text.as_borrowed().is_none() => text.inner().len() / meter::BYTES_A_STEP,
            _ => 0,
        }
    }
}

/// A JSON array.
#[derive(Clone, Debug)]
pub(super) struct List<'a>(Arc<ListInner<'a>>);

#[derive(Debug)]
struct ListInner<'a> {
    items: Vec<Node<'a>>,
    weight: usize,
}

/// A JSON object. Of a key that stands there twice the last one counts.
#[derive(Clone, Debug)]
pub(super) struct Map<'a>(Arc<MapInner<'a>>);

#[derive(Debug)]
struct MapInner<'a> {
    entries: Vec<(CelString<'a>, Node<'a>)>,
    is_sorted: bool,
    weight: usize,
}

impl<'a> List<'a> {
    /// A list of these items.
    fn new(items: Vec<Node<'a>>) -> Self {
        let weight = 1 + items.iter().map(Node::weight).sum::<usize>();
        Self(Arc::new(ListInner { items, weight }))
    }
}

impl<'a> Map<'a> {
    /// An object of these entries.
    pub(super) fn new(mut entries: Vec<(CelString<'a>, Node<'a>)>) -> Self {
        let weight = 1 + entries.iter().map(|(_, node)| node.weight()).sum::<usize>();
        let is_sorted = entries.len() >= SORTED_FROM;
        if is_sorted {
            // Stable, so that the last of equal keys stays the last.
            entries.sort_by(|(a, _), (b, _)| a.inner().cmp(b.inner()));
        }
        Self(Arc::new(MapInner { entries, is_sorted, weight }))
    }

    fn find(&self, key: &str) -> Option<&Node<'a>> {
        let entries = &self.0.entries;
        let found = if self.0.is_sorted {
            let behind = entries.partition_point(|(known, _)| known.inner() <= key);
            behind.checked_sub(1).and_then(|at| entries.get(at)).filter(|(known, _)| known.inner() == key)
        } else {
            entries.iter().rev().find(|(known, _)| known.inner() == key)
        };
        found.map(|(_, node)| node)
    }
}

fn text_of(value: &dyn Val) -> Option<&str> {
    value.downcast_ref::<CelString<'_>>().map(CelString::inner)
}

impl Val for List<'_> {
    fn get_type(&self) -> &Type {
        &types::LIST_TYPE
    }

    fn cel_type() -> &'static Type {
        &types::LIST_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        if other.get_type().kind() != Kind::List || !meter::spend(self.0.weight) {
            return false;
        }
        let (Some(size), Some(others)) = (other.as_sizer(), other.as_iterable()) else { return false };
        let mut others = others.iter();
        usize::try_from(*size.size().inner()) == Ok(self.0.items.len())
            && self.0.items.iter().all(|item| others.next().is_some_and(|other| item.as_val().equals(other)))
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }
}

impl Val for Map<'_> {
    fn get_type(&self) -> &Type {
        &types::MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &types::MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        if other.get_type().kind() != Kind::Map || !meter::spend(self.0.weight) {
            return false;
        }
        let (Some(size), Some(others)) = (other.as_sizer(), other.as_indexer()) else { return false };
        usize::try_from(*size.size().inner()) == Ok(self.0.entries.len())
            && self.0.entries.iter().all(|(key, node)| others.get(key).is_ok_and(|other| node.as_val().equals(other.as_ref())))
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }
}

impl Container for List<'_> {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        let is_in = meter::spend(self.0.items.len()) && self.0.items.iter().any(|item| item.as_val().equals(value));
        Ok(is_in)
    }
}

impl Container for Map<'_> {
    fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(text_of(key).is_some_and(|key| self.find(key).is_some()))
    }
}

impl Sizer for List<'_> {
    fn size(&self) -> CelInt {
        i64::try_from(self.0.items.len()).unwrap_or(i64::MAX).into()
    }
}

impl Sizer for Map<'_> {
    fn size(&self) -> CelInt {
        i64::try_from(self.0.entries.len()).unwrap_or(i64::MAX).into()
    }
}

impl Indexer for List<'_> {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let at = match (index.downcast_ref::<CelInt>(), index.downcast_ref::<CelUInt>()) {
            (Some(at), _) => usize::try_from(*at.inner()).ok(),
            (_, Some(at)) => usize::try_from(*at.inner()).ok(),
            _ => {
                let got = index.get_type().name().to_owned();
                return Err(ExecutionError::UnexpectedType { got, want: "int".to_owned() });
            }
        };
        match at.and_then(|at| self.0.items.get(at)) {
            Some(item) => Ok(CowVal::Borrowed(item.as_val())),
            None => Err(ExecutionError::IndexOutOfBounds(index.try_into()?)),
        }
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(index).map(CowVal::into_owned)
    }
}

impl Indexer for Map<'_> {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let Some(key) = text_of(key) else {
            let got = key.get_type().name().to_owned();
            return Err(ExecutionError::UnexpectedType { got, want: "string".to_owned() });
        };
        self.find(key).map(|node| CowVal::Borrowed(node.as_val())).ok_or_else(|| ExecutionError::no_such_key(key))
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(key).map(CowVal::into_owned)
    }
}

/// Lends the items of a list to a loop.
struct Items<'b, 'a>(std::slice::Iter<'b, Node<'a>>);

impl<'b, 'a: 'v, 'v> ValIterator<'b, 'v> for Items<'b, 'a> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        let item = self.0.next()?;
        meter::spend(item.copy_steps());
        Some(item.as_val())
    }
}

/// Lends the keys of an object to a loop.
struct Keys<'b, 'a>(std::slice::Iter<'b, (CelString<'a>, Node<'a>)>);

impl<'b, 'a: 'v, 'v> ValIterator<'b, 'v> for Keys<'b, 'a> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        let (key, _) = self.0.next()?;
        meter::spend(key.inner().len() / meter::BYTES_A_STEP);
        Some(key)
    }
}

impl Iterable for List<'_> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn ValIterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        Box::new(Items(self.0.items.iter()))
    }
}

impl Iterable for Map<'_> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn ValIterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        Box::new(Keys(self.0.entries.iter()))
    }
}
