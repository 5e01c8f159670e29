//! What goes wrong, and when: drawn before a run begins, ended some time later.

use std::time::Duration;

use evenkeel_common::seed::Stream;
use turmoil::Sim;

use crate::hosts::{ELECTION, World};
use crate::store::Mood;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Two hosts do not reach each other; what is on its way is lost.
    Partition,
    /// One of two hosts does not reach the other, which still reaches it.
    OneWayPartition,
    /// The leader reaches nobody.
    LeaderIsolated,
    /// The leader does not reach etcd, or is not reached by it, but reaches workers and store.
    LeaderWithoutEtcd,
    /// Messages between two hosts wait, and then come all at once.
    LinkHeld,
    /// Messages between two hosts take long.
    SlowLink,
    /// A worker's process is killed: its connections close.
    WorkerKilled,
    /// A worker's machine loses power: nobody hears of it.
    WorkerOff,
    /// A worker is told to leave.
    WorkerTold,
    /// The leader's process is killed.
    LeaderKilled,
    /// The leader's machine loses power.
    LeaderOff,
    /// The leader is told to leave.
    LeaderTold,
    /// A coordinator that stands by is killed.
    StandbyKilled,
    /// etcd is away for a while.
    EtcdKilled,
    /// The store fails before it does anything.
    StoreFailsBefore,
    /// The store fails after it did what it was asked.
    StoreFailsAfter,
    /// The store takes seconds.
    StoreSlow,
    /// A message comes twice (always on, by a seed's odds).
    MessageDoubled,
    /// A message holds up those behind it (always on).
    MessageDelayed,
}

impl Fault {
    /// Those that are scheduled.
    pub const SCHEDULED: [Self; 17] = [
        Self::Partition,
        Self::OneWayPartition,
        Self::LeaderIsolated,
        Self::LeaderWithoutEtcd,
        Self::LinkHeld,
        Self::SlowLink,
        Self::WorkerKilled,
        Self::WorkerOff,
        Self::WorkerTold,
        Self::LeaderKilled,
        Self::LeaderOff,
        Self::LeaderTold,
        Self::StandbyKilled,
        Self::EtcdKilled,
        Self::StoreFailsBefore,
        Self::StoreFailsAfter,
        Self::StoreSlow,
    ];

    /// Those that change who leads, while results are on their way.
    const HANDOVERS: [Self; 9] = [
        Self::LeaderIsolated,
        Self::LeaderWithoutEtcd,
        Self::LeaderWithoutEtcd,
        Self::LeaderKilled,
        Self::LeaderOff,
        Self::LeaderTold,
        Self::EtcdKilled,
        Self::StoreFailsAfter,
        Self::StoreSlow,
    ];

    /// Those between one leader and its workers.
    const FIELD: [Self; 8] = [
        Self::Partition,
        Self::OneWayPartition,
        Self::LinkHeld,
        Self::SlowLink,
        Self::WorkerKilled,
        Self::WorkerOff,
        Self::WorkerTold,
        Self::StoreFailsBefore,
    ];
}

/// A fault to come. Whom it hits is decided when it does, by `pick`.
#[derive(Clone, Copy, Debug)]
struct Planned {
    at: Duration,
    lasts: Duration,
    fault: Fault,
    pick: u64,
}

/// How a fault ends.
#[derive(Clone, Debug)]
enum Cure {
    Repair(String, String),
    RepairOneWay(String, String),
    Release(String, String),
    Quicken(String, String),
    Start(String),
    /// Whose links were all cut.
    Rejoin(String),
    StoreWell,
}

/// The faults of a run.
pub struct Faults {
    world: World,
    coordinators: Vec<String>,
    workers: Vec<String>,
    planned: Vec<Planned>,
    cures: Vec<(Duration, Cure)>,
}

/// The latency of a link that is well.
pub const LATENCY: Duration = Duration::from_millis(8);
/// Life of a lease in etcd.
const LEASE: Duration = Duration::from_secs(5);
/// How long a supervisor waits before it starts a process again that ended by itself.
const RESTART_AFTER: Duration = Duration::from_secs(1);

impl Faults {
    /// Draws what is to happen within `span`.
    #[must_use]
    pub fn plan(
        world: &World,
        mut draws: Stream,
        span: Duration,
        coordinators: &[String],
        workers: &[String],
    ) -> Self {
        let count = 3 + draws.below(9);
        let kinds = match draws.below(3) {
            0 => &Fault::SCHEDULED[..],
            1 => &Fault::HANDOVERS,
            _ => &Fault::FIELD,
        };
        let mut planned: Vec<Planned> = (0..count)
            .map(|_| {
                let longest = if draws.below(4) == 0 { 14_000 } else { 4_000 };
                Planned {
                    at: Duration::from_millis(500 + draws.below(span.as_millis() as u64)),
                    lasts: Duration::from_millis(200 + draws.below(longest)),
                    fault: kinds[draws.below(kinds.len() as u64) as usize],
                    pick: draws.next_u64(),
                }
            })
            .collect();
        planned.sort_by_key(|planned| std::cmp::Reverse(planned.at));
        Self {
            world: world.clone(),
            coordinators: coordinators.to_vec(),
            workers: workers.to_vec(),
            planned,
            cures: Vec::new(),
        }
    }

    /// Whether nothing goes wrong any more.
    #[must_use]
    pub fn are_over(&self) -> bool {
        self.planned.is_empty() && self.cures.is_empty()
    }

    /// Lets happen what is due.
    pub fn step(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        self.world.weather.land(now, &self.world.objects, &self.world.oracle);
        let due = |(at, _): &(Duration, Cure)| *at <= now;
        let cures: Vec<Cure> = self.cures.iter().filter(|cure| due(cure)).map(|(_, c)| c.clone()).collect();
        self.cures.retain(|cure| !due(cure));
        for cure in cures {
            self.cure(sim, &cure);
        }
        while let Some(planned) = self.planned.pop_if(|planned| planned.at <= now) {
            self.strike(sim, planned);
        }
        // Processes that ended by themselves, or were told to.
        let all: Vec<String> = self.coordinators.iter().chain(&self.workers).cloned().collect();
        for host in all {
            if !sim.is_host_running(host.as_str()) && !self.is_down(&host) {
                self.cures.push((now + RESTART_AFTER, Cure::Start(host)));
            }
        }
    }

    fn is_down(&self, host: &str) -> bool {
        self.cures.iter().any(|(_, cure)| matches!(cure, Cure::Start(down) if down == host))
    }

    fn leader(&self) -> Option<String> {
        let (_, address) = self.world.etcd.leader(ELECTION)?;
        self.coordinators.iter().find(|host| crate::hosts::address(host) == address).cloned()
    }

    fn everyone(&self) -> Vec<String> {
        let etcd = ["etcd".to_owned()];
        self.coordinators.iter().chain(&self.workers).chain(&etcd).cloned().collect()
    }

    fn strike(&mut self, sim: &mut Sim<'_>, planned: Planned) {
        let Planned { lasts, fault, pick, .. } = planned;
        let mut until = sim.elapsed() + lasts;
        let one_of = |hosts: &[String], pick: u64| hosts[(pick % hosts.len() as u64) as usize].clone();
        let leader = self.leader();
        let standby = self.coordinators.iter().find(|host| Some(*host) != leader.as_ref()).cloned();
        let worker = one_of(&self.workers, pick);
        // Somebody, and somebody else.
        let everyone = self.everyone();
        let one = one_of(&everyone, pick);
        let others: Vec<String> = everyone.iter().filter(|host| **host != one).cloned().collect();
        let other = one_of(&others, pick >> 20);
        let (a, b) = (one.clone(), other.clone());
        let (cures, on) = match fault {
            Fault::Partition => {
                sim.partition(one.as_str(), other.as_str());
                (vec![Cure::Repair(a, b)], format!("{one} {other}"))
            }
            Fault::OneWayPartition => {
                sim.partition_oneway(one.as_str(), other.as_str());
                (vec![Cure::RepairOneWay(a, b)], format!("{one} to {other}"))
            }
            Fault::LinkHeld => {
                sim.hold(one.as_str(), other.as_str());
                (vec![Cure::Release(a, b)], format!("{one} {other}"))
            }
            Fault::SlowLink => {
                let latency = Duration::from_millis(100 + (pick >> 40) % 1_500);
                sim.set_link_latency(one.as_str(), other.as_str(), latency);
                (vec![Cure::Quicken(a, b)], format!("{one} {other} {latency:?}"))
            }
            Fault::LeaderIsolated => match leader {
                Some(leader) => {
                    self.cut_off(sim, &leader);
                    (vec![Cure::Rejoin(leader.clone())], leader)
                }
                None => return,
            },
            Fault::LeaderWithoutEtcd => match leader {
                Some(leader) => {
                    let pair = (leader.clone(), "etcd".to_owned());
                    let cure = match pick % 3 {
                        0 => {
                            sim.partition_oneway(leader.as_str(), "etcd");
                            Cure::RepairOneWay(pair.0, pair.1)
                        }
                        1 => {
                            sim.partition_oneway("etcd", leader.as_str());
                            Cure::RepairOneWay(pair.1, pair.0)
                        }
                        _ => {
                            sim.partition(leader.as_str(), "etcd");
                            Cure::Repair(pair.0, pair.1)
                        }
                    };
                    // Longer than a lease lives.
                    until += LEASE;
                    (vec![cure], leader)
                }
                None => return,
            },
            Fault::WorkerKilled | Fault::WorkerOff => {
                match self.stop(sim, Some(worker), fault == Fault::WorkerOff) {
                    Some(stopped) => stopped,
                    None => return,
                }
            }
            Fault::LeaderKilled | Fault::LeaderOff => {
                match self.stop(sim, leader, fault == Fault::LeaderOff) {
                    Some(stopped) => stopped,
                    None => return,
                }
            }
            Fault::StandbyKilled => match self.stop(sim, standby, false) {
                Some(stopped) => stopped,
                None => return,
            },
            Fault::EtcdKilled => match self.stop(sim, Some("etcd".to_owned()), false) {
                Some(stopped) => stopped,
                None => return,
            },
            Fault::WorkerTold => {
                self.world.terminate(&worker);
                (Vec::new(), worker)
            }
            Fault::LeaderTold => match leader {
                Some(leader) => {
                    self.world.terminate(&leader);
                    (Vec::new(), leader)
                }
                None => return,
            },
            Fault::StoreFailsBefore => self.upset(Mood::FailsBefore),
            Fault::StoreFailsAfter => self.upset(Mood::FailsAfter),
            Fault::StoreSlow => self.upset(Mood::Slow),
            Fault::MessageDoubled | Fault::MessageDelayed => return,
        };
        let lasts = until - sim.elapsed();
        self.world.oracle.fired(fault, &format!("{on}, for {lasts:?}"));
        self.cures.extend(cures.into_iter().map(|cure| (until, cure)));
    }

    fn upset(&self, mood: Mood) -> (Vec<Cure>, String) {
        self.world.weather.set(mood);
        (vec![Cure::StoreWell], String::new())
    }

    /// Ends a process that runs; without a word to its peers when its machine goes with it.
    fn stop(&self, sim: &mut Sim<'_>, host: Option<String>, silently: bool) -> Option<(Vec<Cure>, String)> {
        let host = host.filter(|host| sim.is_host_running(host.as_str()))?;
        let mut cures = vec![Cure::Start(host.clone())];
        if silently {
            self.cut_off(sim, &host);
            cures.push(Cure::Rejoin(host.clone()));
        }
        sim.crash(host.as_str());
        Some((cures, host))
    }

    fn cut_off(&self, sim: &Sim<'_>, host: &str) {
        for other in self.everyone().iter().filter(|other| *other != host) {
            sim.partition(host, other.as_str());
        }
    }

    fn cure(&self, sim: &mut Sim<'_>, cure: &Cure) {
        self.world.oracle.note("cure", format!("{cure:?}"));
        match cure {
            Cure::Repair(a, b) => sim.repair(a.as_str(), b.as_str()),
            Cure::RepairOneWay(a, b) => sim.repair_oneway(a.as_str(), b.as_str()),
            Cure::Release(a, b) => sim.release(a.as_str(), b.as_str()),
            Cure::Quicken(a, b) => sim.set_link_latency(a.as_str(), b.as_str(), LATENCY),
            Cure::Start(host) => sim.bounce(host.as_str()),
            Cure::Rejoin(host) => {
                for other in self.everyone().iter().filter(|other| *other != host) {
                    sim.repair(host.as_str(), other.as_str());
                }
            }
            Cure::StoreWell => self.world.weather.set(Mood::Well),
        }
    }
}
