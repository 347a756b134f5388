//! Applying a patch.

use std::collections::BTreeSet;

use super::{Edit, Named, NewNode, ORIGIN, Operand, Patch, PatchError};
use crate::graph::Port;
use crate::node::Output;
use crate::{Graph, Node, NodeId, Op, Use, Value};

impl Graph {
    /// Applies a patch and removes what it leaves unused. Returns the new nodes, in the patch's order;
    /// those that nothing uses are gone again. On error the graph is not usable any more.
    ///
    /// Outputs of the graph keep their names: what replaces one takes its name over, or is passed
    /// through an `Identity` of that name where it has to keep its own. A cycle is noticed in debug
    /// builds only.
    pub fn apply(&mut self, patch: Patch) -> Result<Vec<NodeId>, PatchError> {
        let anchor = if self.contains(patch.anchor) {
            self.label(patch.anchor)
        } else {
            String::new()
        };
        self.check_operands(&patch, &anchor)?;
        let origin = self.origin_of(patch.anchor);
        let site = Site {
            node: patch.anchor,
            place: self.vertex(patch.anchor).place,
            anchor,
            origin,
        };
        let added: Vec<NodeId> = patch
            .nodes
            .iter()
            .map(|new| self.add_new(new, &site))
            .collect();
        let resolve = |operand: Operand| match operand {
            Operand::Old(value) => value,
            Operand::New { node, slot } => Value {
                node: added[node],
                slot,
            },
        };
        // Before the anchor's own captures can move.
        for (new, &id) in patch.nodes.iter().zip(&added) {
            self.connect_captures(new, id, &site)?;
        }
        let named: Vec<(Value, Value, Option<String>, String)> = patch
            .named
            .into_iter()
            .map(|named| {
                let name = self.value_name(named.old).to_owned();
                let longer = format!("{name}.{}", named.suffix);
                let own = (!named.always).then_some(name);
                (resolve(named.new), named.old, own, longer)
            })
            .collect();
        let mut idle = BTreeSet::new();
        for edit in patch.edits {
            match edit {
                Edit::Replace { old, new, retype } => {
                    let new = resolve(new);
                    if !retype {
                        self.check_types(old, new, &site.anchor)?;
                    }
                    self.move_uses(old, new, retype, &site)?;
                    idle.insert(old.node);
                }
                Edit::Forget(value) => self.forget(value),
                Edit::SetInput { node, slot, new } => {
                    idle.extend(self.input(node, slot).map(|old| old.node));
                    self.set_input(node, slot, new.map(resolve));
                }
                Edit::SetAttribute { node, attribute } => {
                    if let Node::Op(op) = &mut self.vertex_mut(node).node {
                        op.set(*attribute);
                    }
                }
                Edit::Unset { node, attribute } => {
                    if let Node::Op(op) = &mut self.vertex_mut(node).node {
                        op.unset(&attribute);
                    }
                }
            }
        }
        for (new, &id) in patch.nodes.iter().zip(&added) {
            for (slot, operand) in new.inputs.iter().enumerate() {
                if let Some(operand) = operand {
                    self.connect(resolve(*operand), id, Port::Input(slot as u32));
                }
            }
        }
        let kept: Vec<NodeId> = patch.kept.iter().map(|&node| added[node]).collect();
        idle.extend(added.iter().copied().filter(|id| !kept.contains(id)));
        self.remove_idle(idle);
        for (value, old, own, longer) in named {
            self.call_after(value, old, own, &longer);
        }
        if cfg!(debug_assertions) && self.nodes().len() != self.net.node_count() {
            let anchor = site.anchor;
            return Err(PatchError::Cycle { anchor });
        }
        #[cfg(debug_assertions)]
        crate::check::assert_consistent(self);
        Ok(added)
    }

    /// Removes unused operators and parameters, and returns the number of removed nodes.
    pub fn remove_dead(&mut self) -> usize {
        let before = self.net.node_count();
        let all = self.unordered().collect();
        self.remove_idle(all);
        before - self.net.node_count()
    }

    fn check_operands(&self, patch: &Patch, anchor: &str) -> Result<(), PatchError> {
        let there = |operand: Operand| match operand {
            Operand::Old(v) => self.contains(v.node) && v.slot < self.output_count(v.node),
            Operand::New { node, slot } => {
                patch.nodes.get(node).is_some_and(|new| slot < new.outputs)
            }
        };
        let mut read = patch.nodes.iter().flat_map(|n| n.inputs.iter().flatten());
        let mut good = self.contains(patch.anchor) && read.all(|&operand| there(operand));
        let named = |named: &Named| there(named.new) && there(Operand::Old(named.old));
        good &= patch.named.iter().all(named);
        for edit in &patch.edits {
            let operator = match edit {
                Edit::Replace { old, new, .. } => {
                    good &= there(Operand::Old(*old)) && there(*new);
                    continue;
                }
                Edit::Forget(value) => {
                    good &= there(Operand::Old(*value));
                    continue;
                }
                Edit::SetInput { node, new, .. } => {
                    good &= new.is_none_or(there);
                    *node
                }
                Edit::SetAttribute { node, .. } | Edit::Unset { node, .. } => *node,
            };
            good &= self.contains(operator);
            if good && self.op(operator).is_none() {
                return Err(PatchError::NotAnOperator {
                    anchor: anchor.to_owned(),
                    node: self.label(operator),
                });
            }
        }
        match good {
            true => Ok(()),
            false => Err(PatchError::StaleNode {
                anchor: anchor.to_owned(),
            }),
        }
    }

    fn check_types(&self, old: Value, new: Value, anchor: &str) -> Result<(), PatchError> {
        let (Some(a), Some(b)) = (self.value_type(old), self.value_type(new)) else {
            return Ok(());
        };
        let same_rank = a.rank().is_none() || b.rank().is_none() || a.rank() == b.rank();
        if a.dtype == b.dtype && same_rank {
            return Ok(());
        }
        Err(PatchError::TypeChanged {
            anchor: anchor.to_owned(),
            value: self.value_name(old).to_owned(),
            old: a.to_string(),
            new: b.to_string(),
        })
    }

    /// The original node that a node came from: itself unless a patch made it.
    fn origin_of(&self, id: NodeId) -> String {
        let made_from = self.op(id).filter(|_| !self.is_original(id));
        made_from
            .and_then(|op| op.metadata(ORIGIN))
            .map_or_else(|| self.label(id), str::to_owned)
    }

    fn add_new(&mut self, new: &NewNode, site: &Site) -> NodeId {
        let name = self.fresh_name(&format!("{}.{}", site.anchor, new.hint));
        let mut node = new.node.clone();
        if let Node::Op(op) = &mut node {
            op.header.name = Some(name.clone());
            op.set_metadata(ORIGIN, &site.origin);
        }
        let outputs = (0..new.outputs)
            .map(|slot| Output {
                name: if slot == 0 {
                    name.clone()
                } else {
                    self.fresh_name(&format!("{name}.{slot}"))
                },
                inferred: new.types[slot as usize].clone(),
                ..Output::default()
            })
            .collect();
        self.add_vertex(site.place, node, outputs)
    }

    /// A copy of the anchor's operator captures what the anchor captures.
    fn connect_captures(
        &mut self,
        new: &NewNode,
        id: NodeId,
        site: &Site,
    ) -> Result<(), PatchError> {
        let labels = new.node.as_op().map_or(&[][..], Op::captures);
        for (port, label) in labels.iter().enumerate() {
            let known = self.op(site.node).map_or(&[][..], Op::captures);
            let captured = known.iter().position(|k| k == label);
            let value = captured.and_then(|i| self.captured_by(site.node).get(i).copied());
            let value = value.ok_or_else(|| PatchError::UnknownCapture {
                anchor: site.anchor.clone(),
                value: label.clone(),
            })?;
            self.connect(value, id, Port::Capture(port as u32));
        }
        Ok(())
    }

    fn move_uses(
        &mut self,
        old: Value,
        new: Value,
        retype: bool,
        site: &Site,
    ) -> Result<(), PatchError> {
        if old == new {
            return Ok(());
        }
        let known = self.value_type(new).or_else(|| self.value_type(old));
        let mut outputs = Vec::new();
        for usage in self.uses(old) {
            match usage {
                Use::Input { node, slot } => self.connect(new, node, Port::Input(slot)),
                Use::Capture { node, label } => {
                    let safe = self.visible_to(node, new, site);
                    self.connect(safe, node, Port::Capture(label));
                }
                Use::Output(index) => outputs.push(index),
            }
        }
        if !outputs.is_empty() {
            self.move_outputs(&outputs, old, new, retype, site)?;
        }
        if !retype {
            let target = &mut self.vertex_mut(new.node).outputs[new.slot as usize];
            target.inferred = target.inferred.take().or(known);
            self.hand_over(old, new);
        }
        Ok(())
    }

    /// Outputs of the graph that are the old value become the new one under the old one's name.
    fn move_outputs(
        &mut self,
        indices: &[usize],
        old: Value,
        new: Value,
        retype: bool,
        site: &Site,
    ) -> Result<(), PatchError> {
        let name = self.value_name(old).to_owned();
        let gives_name = match self.node(old.node) {
            Node::Op(_) => true,
            Node::Parameter(parameter) => parameter.as_input.is_none(),
            Node::Input(_) | Node::Capture(_) => false,
        };
        if !gives_name {
            return Err(PatchError::FixedName {
                anchor: site.anchor.clone(),
                value: name,
            });
        }
        let target = if self.may_be_called(new, &name) {
            new
        } else {
            self.copy_of(new, site)
        };
        let found = self.value_type(new);
        for &index in indices {
            let output = &mut self.outputs[index];
            output.value = target;
            if retype {
                output.info.r#type = found.as_ref().map(|t| Box::new(t.to_proto()));
            }
        }
        let free = self.fresh_name(&format!("{name}.before"));
        let old_output = &mut self.vertex_mut(old.node).outputs[old.slot as usize];
        old_output.name = free;
        let declared = old_output.declared.take().filter(|_| !retype);
        let target_output = &mut self.vertex_mut(target.node).outputs[target.slot as usize];
        target_output.name = name;
        target_output.declared = declared.or(target_output.declared.take());
        Ok(())
    }

    /// Gives a value the first of two names if the value that has it is gone, and otherwise one like the second; unless it has
    /// to keep its own.
    fn call_after(&mut self, value: Value, old: Value, own: Option<String>, longer: &str) {
        if !self.contains(value.node) {
            return;
        }
        let free = own.filter(|_| !self.contains(old.node));
        let name = free.unwrap_or_else(|| self.fresh_name(longer));
        let keeps = |usage: &Use| match usage {
            Use::Output(_) => true,
            Use::Capture { node, .. } => self.op(*node).is_some_and(|op| op.defines(&name)),
            Use::Input { .. } => false,
        };
        if !self.uses(value).iter().any(keeps) {
            self.vertex_mut(value.node).outputs[value.slot as usize].name = name;
        }
    }

    /// Whether a value can take over the name of an output of the graph.
    fn may_be_called(&self, value: Value, name: &str) -> bool {
        let is_op = matches!(self.node(value.node), Node::Op(_));
        let hidden = |usage: &Use| match usage {
            Use::Output(_) => true,
            Use::Capture { node, .. } => self.op(*node).is_some_and(|op| op.defines(name)),
            Use::Input { .. } => false,
        };
        is_op && !self.uses(value).iter().any(hidden)
    }

    /// The value itself, or a copy under another name where a subgraph of `reader` has a value of
    /// its own by that name.
    fn visible_to(&mut self, reader: NodeId, value: Value, site: &Site) -> Value {
        let name = self.value_name(value);
        match self.op(reader).is_some_and(|op| op.defines(name)) {
            true => self.copy_of(value, site),
            false => value,
        }
    }

    fn copy_of(&mut self, value: Value, site: &Site) -> Value {
        let name = self.fresh_name(&format!("{}.identity", self.value_name(value)));
        let copy = self.add_identity(value, name);
        if let Node::Op(op) = &mut self.vertex_mut(copy.node).node {
            op.set_metadata(ORIGIN, &site.origin);
        }
        copy
    }

    fn set_input(&mut self, node: NodeId, slot: u32, new: Option<Value>) {
        match new {
            Some(value) => self.connect(value, node, Port::Input(slot)),
            None => self.disconnect(node, Port::Input(slot)),
        }
        let arity = self.op(node).map_or(0, |op| op.arity).max(slot + 1);
        let used = (0..arity).rev().find(|&s| self.input(node, s).is_some());
        if let Node::Op(op) = &mut self.vertex_mut(node).node {
            op.arity = used.map_or(0, |s| s + 1);
        }
    }

    fn remove_idle(&mut self, mut idle: BTreeSet<NodeId>) {
        while let Some(id) = idle.pop_last() {
            if !self.contains(id) || self.is_needed(id) {
                continue;
            }
            idle.extend(self.inputs_of(id).into_iter().flatten().map(|v| v.node));
            idle.extend(self.captured_by(id).into_iter().map(|v| v.node));
            self.remove_vertex(id);
        }
    }

    fn is_needed(&self, id: NodeId) -> bool {
        let kept = match self.node(id) {
            Node::Input(_) => true,
            Node::Parameter(parameter) => {
                parameter.as_input.is_some() || self.pinned.contains(&self.label(id))
            }
            Node::Op(_) | Node::Capture(_) => false,
        };
        let used = self
            .net
            .edges_directed(id.index(), petgraph::Direction::Outgoing)
            .next()
            .is_some();
        kept || used || self.outputs.iter().any(|o| o.value.node == id)
    }
}

/// The anchor of a patch.
struct Site {
    node: NodeId,
    place: u32,
    /// How the names of new nodes begin.
    anchor: String,
    /// What new nodes name as their origin.
    origin: String,
}
