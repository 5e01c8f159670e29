//! What goes wrong, and whom it happens to.

use std::time::Duration;

use evenkeel_common::seed::Stream;

use super::cluster::Cluster;
use super::member::Member;
use super::network::Cut;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `kill -9` of a worker.
    WorkerKilled,
    /// SIGSTOP of a worker, for some seconds.
    WorkerFrozen,
    /// `kill -9` of the coordinator that leads.
    LeaderKilled,
    /// SIGSTOP of the coordinator that leads, for longer than its lease.
    LeaderFrozen,
    /// `kill -9` of the coordinator that stands by.
    StandbyKilled,
    /// `kill -9` of a member of etcd.
    EtcdKilled,
    /// SIGSTOP of a member of etcd, for some seconds.
    EtcdFrozen,
    /// No segment can be written, for some seconds.
    StoreUnwritable,
    /// No packet to or from a worker arrives.
    WorkerCutOff,
    /// No packet to a worker arrives, those from it do.
    WorkerDeaf,
    /// No packet from a worker arrives, those to it do.
    WorkerMute,
    /// The same for the coordinator that leads; it still reaches the store.
    LeaderCutOff,
    /// No packet to it arrives.
    LeaderDeaf,
    /// No packet from it arrives.
    LeaderMute,
    /// No packet to or from a member of etcd arrives.
    EtcdCutOff,
}

impl Fault {
    /// Those that need no rights.
    const ANYWHERE: [Self; 8] = [
        Self::WorkerKilled,
        Self::WorkerFrozen,
        Self::LeaderKilled,
        Self::LeaderFrozen,
        Self::StandbyKilled,
        Self::EtcdKilled,
        Self::EtcdFrozen,
        Self::StoreUnwritable,
    ];
    /// Those of members with a network of their own.
    const OF_NETWORKS: [Self; 7] = [
        Self::WorkerCutOff,
        Self::WorkerDeaf,
        Self::WorkerMute,
        Self::LeaderCutOff,
        Self::LeaderDeaf,
        Self::LeaderMute,
        Self::EtcdCutOff,
    ];

    /// All that can happen.
    #[must_use]
    pub fn all(networks: bool) -> Vec<Self> {
        let of_networks = if networks { &Self::OF_NETWORKS[..] } else { &[] };
        [&Self::ANYWHERE[..], of_networks].concat()
    }
}

impl Cluster {
    /// Lets a fault happen, if it can now: what ails already is left alone, and etcd keeps its majority.
    ///
    /// # Errors
    /// When a tool that it takes fails.
    pub fn inject(&mut self, fault: Fault, sweep: &str, draws: &mut Stream) -> anyhow::Result<bool> {
        let mut seconds =
            |from: u64, to: u64| Duration::from_millis(from * 1000 + draws.below((to - from) * 1000));
        // The longer is longer than a lease.
        let (short, long) = (seconds(1, 3), seconds(6, 9));
        let any = if draws.below(2) == 0 { short } else { long };
        let Some(member) = self.victim(fault, draws) else {
            return if fault == Fault::StoreUnwritable {
                self.store.withhold(sweep, short)
            } else {
                Ok(false)
            };
        };
        match fault {
            Fault::WorkerKilled | Fault::LeaderKilled | Fault::StandbyKilled | Fault::EtcdKilled => {
                Ok(member.kill(short))
            }
            Fault::WorkerFrozen => member.freeze(any),
            Fault::LeaderFrozen | Fault::EtcdFrozen => member.freeze(long),
            Fault::WorkerCutOff | Fault::LeaderCutOff | Fault::EtcdCutOff => member.cut(Cut::Both, any),
            Fault::WorkerDeaf | Fault::LeaderDeaf => member.cut(Cut::Inbound, any),
            Fault::WorkerMute | Fault::LeaderMute => member.cut(Cut::Outbound, any),
            Fault::StoreUnwritable => Ok(false),
        }
    }

    /// Whom it happens to.
    fn victim(&mut self, fault: Fault, draws: &mut Stream) -> Option<&mut Member> {
        match fault {
            Fault::WorkerKilled
            | Fault::WorkerFrozen
            | Fault::WorkerCutOff
            | Fault::WorkerDeaf
            | Fault::WorkerMute => pick(&mut self.workers, draws),
            Fault::LeaderKilled
            | Fault::LeaderFrozen
            | Fault::LeaderCutOff
            | Fault::LeaderDeaf
            | Fault::LeaderMute => {
                let leader = self.leader()?;
                Some(&mut self.coordinators[leader]).filter(|member| member.is_well())
            }
            Fault::StandbyKilled => {
                let standby = 1 - self.leader()?;
                Some(&mut self.coordinators[standby]).filter(|member| member.is_well())
            }
            Fault::EtcdKilled | Fault::EtcdFrozen | Fault::EtcdCutOff => {
                let whole = self.etcd.iter().all(Member::is_well);
                if whole { pick(&mut self.etcd, draws) } else { None }
            }
            Fault::StoreUnwritable => None,
        }
    }
}

/// One that nothing ails.
fn pick<'a>(members: &'a mut [Member], draws: &mut Stream) -> Option<&'a mut Member> {
    let mut well: Vec<&mut Member> = members.iter_mut().filter(|member| member.is_well()).collect();
    (!well.is_empty()).then(|| well.swap_remove(draws.below(well.len() as u64) as usize))
}
