//! Which core serves which queues.

use crate::interface::Interface;
use thiserror::Error;

/// Cores with their queues, and the queues that have none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Cores that have queues.
    pub cores: Vec<CorePlan>,
    /// Cores that were asked for, but for which there is no queue.
    pub idle_cores: Vec<usize>,
    /// Queues that no core serves.
    pub unserved: Vec<u32>,
}

/// One core and its queues, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorePlan {
    /// Its CPU.
    pub cpu: usize,
    /// Its queues.
    pub queues: Vec<u32>,
    /// Those that may appear later, and will be its.
    pub spare_queues: Vec<u32>,
}

/// Why queues and cores do not go together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// There is no such queue.
    #[error(
        "{interface} has no receive queue {queue}; it has {queues}, numbered from 0 (`ethtool -l {interface}`)"
    )]
    NoQueue {
        /// The interface.
        interface: String,
        /// What was asked for.
        queue: u32,
        /// How many there are.
        queues: u32,
    },
    /// Something was asked for twice.
    #[error("{what} {number} is given twice: name it once")]
    Twice {
        /// Queue or core.
        what: &'static str,
        /// Its number.
        number: usize,
    },
}

impl Plan {
    /// Spreads queues over cores, in turn; empty lists mean all there are. `allowed`: the CPUs that the process may use.
    ///
    /// # Errors
    ///
    /// If a queue does not exist, or a queue or a core is named twice.
    pub fn new(
        queues: &[u32],
        cores: &[usize],
        interface: &Interface,
        allowed: &[usize],
    ) -> Result<Plan, PlanError> {
        let all: Vec<u32> = (0..interface.rx_queues).collect();
        if let Some(&queue) = queues.iter().find(|queue| !all.contains(queue)) {
            let (interface, queues) = (interface.name.clone(), interface.rx_queues);
            return Err(PlanError::NoQueue {
                interface,
                queue,
                queues,
            });
        }
        if let Some(&queue) = first_twice(queues) {
            return Err(PlanError::Twice {
                what: "queue",
                number: queue as usize,
            });
        }
        if let Some(&number) = first_twice(cores) {
            return Err(PlanError::Twice {
                what: "core",
                number,
            });
        }

        let queues = if queues.is_empty() { &all } else { queues };
        let cpus = if cores.is_empty() { allowed } else { cores };
        let (used, idle) = cpus.split_at(cpus.len().min(queues.len()));
        let share = |(turn, &cpu): (usize, &usize)| CorePlan {
            cpu,
            queues: queues
                .iter()
                .skip(turn)
                .step_by(used.len())
                .copied()
                .collect(),
            spare_queues: Vec::new(),
        };
        Ok(Plan {
            cores: used.iter().enumerate().map(share).collect(),
            idle_cores: if cores.is_empty() {
                Vec::new()
            } else {
                idle.to_vec()
            },
            unserved: all
                .iter()
                .copied()
                .filter(|queue| !queues.contains(queue))
                .collect(),
        })
    }

    /// Prepares for up to `count` queues that may appear, as far as the NIC can have more; in turn, like the others.
    #[must_use]
    pub fn with_spare_queues(mut self, count: u32, interface: &Interface) -> Plan {
        let cores = self.cores.len();
        let most = interface.rx_queues.saturating_add(count);
        for queue in interface.rx_queues..interface.rx_queues_max.min(most) {
            self.cores[queue as usize % cores].spare_queues.push(queue);
        }
        self
    }

    /// How many queues there may be, those included that may appear.
    pub fn queues_max(&self, interface: &Interface) -> u32 {
        let spare = self.cores.iter().map(|core| core.spare_queues.len());
        interface.rx_queues + spare.sum::<usize>() as u32
    }

    /// What the plan costs and what would mend it, a line each.
    pub fn advice(&self, interface: &Interface, ports: &[u16]) -> Vec<String> {
        let mut lines = Vec::new();
        if !interface.is_up {
            let name = &interface.name;
            lines.push(format!("{name} is down: `ip link set dev {name} up`"));
        }
        if !self.idle_cores.is_empty() {
            lines.push(format!(
                "no queue is left for core {}",
                list(&self.idle_cores)
            ));
        }
        if !self.unserved.is_empty() {
            let name = &interface.name;
            let weight = |queue| {
                if self.unserved.contains(&queue) {
                    "0"
                } else {
                    "1"
                }
            };
            let weights: Vec<_> = (0..interface.rx_queues).map(weight).collect();
            let mut line = format!(
                "queue {} is not served: the kernel refuses what arrives there. Keep all traffic off it: \
                 `ethtool -X {name} weight {}`",
                list(&self.unserved),
                weights.join(" "),
            );
            let first = self.cores.iter().flat_map(|core| &core.queues).next();
            if let (Some(queue), [port, ..]) = (first, ports) {
                line += &format!(
                    ", or steer the port: `ethtool -N {name} flow-type tcp4 dst-port {port} action {queue}` (and tcp6)"
                );
            }
            lines.push(line);
        }
        lines
    }
}

fn first_twice<T: PartialEq>(items: &[T]) -> Option<&T> {
    items
        .iter()
        .enumerate()
        .find(|(at, item)| items[..*at].contains(item))
        .map(|(_, item)| item)
}

/// `1, 2, 3`.
pub(super) fn list<T: ToString>(items: &[T]) -> String {
    items
        .iter()
        .map(T::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(rx_queues: u32) -> Interface {
        Interface {
            name: "eth9".into(),
            index: 9,
            framing: crate::interface::Framing::Ethernet,
            mac: [2, 0, 0, 0, 0, 9],
            is_up: true,
            mtu: 1500,
            addresses: vec![],
            rx_queues,
            rx_queues_max: rx_queues,
            driver: "test".into(),
        }
    }

    fn plan(queues: &[u32], cores: &[usize], rx_queues: u32) -> Result<Plan, PlanError> {
        Plan::new(queues, cores, &interface(rx_queues), &[0, 1, 2, 3])
    }

    fn shares(plan: &Plan) -> Vec<(usize, Vec<u32>)> {
        plan.cores
            .iter()
            .map(|core| (core.cpu, core.queues.clone()))
            .collect()
    }

    #[test]
    fn by_default_every_queue_is_served_and_no_core_is_without_one() {
        let fewer_queues = plan(&[], &[], 2).unwrap();
        assert_eq!(shares(&fewer_queues), [(0, vec![0]), (1, vec![1])]);
        let more_queues = plan(&[], &[], 6).unwrap();
        assert_eq!(
            shares(&more_queues),
            [(0, vec![0, 4]), (1, vec![1, 5]), (2, vec![2]), (3, vec![3])]
        );
        for plan in [fewer_queues, more_queues] {
            assert!(plan.advice(&interface(6), &[80]).is_empty());
        }
    }

    #[test]
    fn queues_and_cores_are_used_as_they_are_given() {
        let plan = plan(&[3, 1, 2], &[2, 0], 4).unwrap();
        assert_eq!(shares(&plan), [(2, vec![3, 2]), (0, vec![1])]);
    }

    #[test]
    fn what_is_left_out_comes_with_the_command_that_helps() {
        let plan = plan(&[1], &[2, 0], 3).unwrap();
        assert_eq!(
            (shares(&plan), &plan.idle_cores[..], &plan.unserved[..]),
            (vec![(2, vec![1])], &[0][..], &[0, 2][..])
        );
        let advice = plan.advice(&interface(3), &[8080]).join("\n");
        assert!(advice.contains("core 0"), "{advice}");
        assert!(advice.contains("queue 0, 2"), "{advice}");
        assert!(advice.contains("ethtool -X eth9 weight 0 1 0"), "{advice}");
        assert!(
            advice.contains("ethtool -N eth9 flow-type tcp4 dst-port 8080 action 1"),
            "{advice}"
        );
    }

    #[test]
    fn queues_that_may_appear_go_to_the_cores_in_turn() {
        let narrowed = Interface {
            rx_queues_max: 8,
            ..interface(3)
        };
        let spare = |count| {
            let plan = Plan::new(&[], &[], &narrowed, &[0, 1]).unwrap();
            let plan = plan.with_spare_queues(count, &narrowed);
            let spare: Vec<_> = plan
                .cores
                .iter()
                .map(|core| core.spare_queues.clone())
                .collect();
            (spare, plan.queues_max(&narrowed))
        };
        assert_eq!(spare(0), (vec![vec![], vec![]], 3));
        // Queues 0 to 2 are served by cores 0, 1 and 0.
        assert_eq!(spare(2), (vec![vec![4], vec![3]], 5));
        assert_eq!(spare(64), (vec![vec![4, 6], vec![3, 5, 7]], 8));
    }

    #[test]
    fn what_does_not_exist_or_is_named_twice_is_refused() {
        assert!(matches!(
            plan(&[4], &[], 4),
            Err(PlanError::NoQueue {
                queue: 4,
                queues: 4,
                ..
            })
        ));
        assert_eq!(
            plan(&[1, 0, 1], &[], 4),
            Err(PlanError::Twice {
                what: "queue",
                number: 1
            })
        );
        assert_eq!(
            plan(&[], &[2, 2], 4),
            Err(PlanError::Twice {
                what: "core",
                number: 2
            })
        );
    }
}
