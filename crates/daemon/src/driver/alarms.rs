//! What was said and is not believed: told at once, and kept until the owner has read it.

use pilot_wire::NodeId;
use pilot_wire::ipc::Alarm;
use serde_json::json;

use super::Driver;
use super::trust::wall;

/// Alarms kept. The one that was last heard longest ago makes room.
const ALARMS_MAX: usize = 64;

/// An alarm that goes on is written to disk this often, in seconds.
const WRITE_AGAIN: u64 = 60;

impl Driver {
    /// Tells the owner. `text` says what was said, by whom and of whom; the same kind of thing about the same node is
    /// one alarm.
    pub(super) fn alarm(&mut self, node: Option<NodeId>, kind: &'static str, text: String) {
        let now = wall();
        let mut known = self.memory.alarms.iter_mut();
        if let Some(known) = known.find(|known| known.node_id == node && known.kind == kind) {
            self.memory_stale |= known.last + WRITE_AGAIN <= now;
            (known.text, known.last) = (text, now);
            known.times = known.times.saturating_add(1);
            return;
        }
        tracing::warn!(node = node.map(tracing::field::display), kind, "{text}");
        let registry = self.registry.address.clone();
        let data = json!({"peer_node_id": node, "kind": kind, "registry": registry, "text": text});
        self.notify("security.registry_lie", Some(data));
        if self.memory.alarms.len() >= ALARMS_MAX
            && let Some(oldest) =
                (0..self.memory.alarms.len()).min_by_key(|index| self.memory.alarms[*index].last)
        {
            self.memory.alarms.remove(oldest);
        }
        let kind = kind.to_owned();
        self.memory.alarms.push(Alarm { node_id: node, kind, text, first: now, last: now, times: 1 });
        self.memory_stale = true;
    }

    /// The owner has read them.
    pub(super) fn clear_alarms(&mut self, registry_keys: bool) {
        self.memory.alarms.clear();
        if registry_keys {
            self.memory.registry_keys.clear();
        }
        self.memory_stale = true;
    }

    /// What was said of this node and is not believed.
    pub(super) fn alarms_of(&self, node: NodeId) -> Vec<String> {
        let of_it = self.memory.alarms.iter().filter(|alarm| alarm.node_id == Some(node));
        of_it.map(|alarm| alarm.text.clone()).collect()
    }
}
