//! What outlives the processes of one simulation: the disk, the endpoints, the clock, and what really happened.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use hookcast_core::clock::Clock as _;
use hookcast_core::model::NewEvent;
use hookcast_core::model::subscription::SubscriptionRecord;
use hookcast_log::storage::{Store, memory};
use hookcast_net::dial::Gate;
use hookcast_net::tls::Tls;
use hookcast_net::{EgressRules, ResolverChoice};

use crate::clock::WallClock;
use crate::coverage::Coverage;
use crate::faults::Faults;
use crate::lives::Life;
use crate::peers::Ends;
use crate::truth::Truth;

/// One simulation.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) lanes: usize,
    pub(crate) random: RefCell<fastrand::Rng>,
    pub(crate) truth: Arc<Truth>,
    pub(crate) ends: Ends,
    pub(crate) faults: Arc<Faults>,
    pub(crate) clock: Arc<WallClock>,
    pub(crate) coverage: Arc<Coverage>,
    pub(crate) store: Store,
    pub(crate) gate: Gate,
    pub(crate) tls: Tls,
    /// The number of the next event.
    pub(crate) next_event: Cell<u64>,
    /// Events of which publishers do not know whether they are stored.
    pub(crate) unanswered: RefCell<Vec<NewEvent>>,
    /// Polls until the process is killed, if it is.
    pub(crate) left: Rc<Cell<Option<u64>>>,
    /// Whether everything is told, because it is looked at by itself.
    pub(crate) is_told: bool,
    /// What the present process is at.
    pub(crate) phase: Cell<&'static str>,
    trace: RefCell<Vec<String>>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let (truth, coverage) = (Arc::new(Truth::default()), Arc::new(Coverage::default()));
        let ends = Ends::new(random.u64(..), Arc::clone(&truth));
        let faults = Arc::new(Faults::new(random.u64(..), Arc::clone(&truth), Arc::clone(&coverage)));
        let rules = EgressRules::new(Vec::new(), true, ResolverChoice::System, Vec::new());
        let gate = Gate::open(rules).unwrap().to(Arc::new(ends.clone()));
        Self {
            seed,
            lanes: random.usize(2..=4),
            random: RefCell::new(random),
            truth,
            ends,
            faults,
            clock: Arc::new(WallClock::new()),
            coverage,
            store: memory::open().unwrap(),
            gate,
            tls: Tls::new(&[]).unwrap(),
            next_event: Cell::new(1),
            unanswered: RefCell::default(),
            left: Rc::default(),
            is_told: is_told(),
            phase: Cell::new("starts"),
            trace: RefCell::default(),
        }
    }

    /// Uniform below `end`.
    pub(crate) fn below(&self, end: usize) -> usize {
        self.random.borrow_mut().usize(..end)
    }

    /// One in so many.
    pub(crate) fn one_in(&self, many: usize) -> bool {
        self.below(many) == 0
    }

    /// Writes down what the script did.
    pub(crate) fn tell(&self, what: impl Into<String>) {
        let line = format!("{:>9} ms  {}", self.clock.true_ms(), what.into());
        if self.is_told {
            eprintln!("{line}");
        }
        self.trace.borrow_mut().push(line);
    }

    /// All that happened, as one number: the same for the same seed.
    pub(crate) fn fingerprint(&self) -> u32 {
        let text = format!("{}\n{}\n{:?}", self.trace.borrow().join("\n"), self.truth.sum(), self.clock.now());
        crc32fast::hash(text.as_bytes())
    }

    /// The end of what the script did.
    pub(crate) fn last_lines(&self) -> String {
        let trace = self.trace.borrow();
        trace[trace.len().saturating_sub(40)..].join("\n")
    }
}

/// Whether one seed is looked at by itself.
pub(crate) fn is_told() -> bool {
    std::env::var_os("HOOKCAST_SEED").is_some()
}

/// The life that a subscription is in.
pub(crate) fn life_of(record: &SubscriptionRecord) -> Life {
    Life(record.spec.url.rsplit('/').next().and_then(|life| life.parse().ok()).expect("a life in the URL"))
}
