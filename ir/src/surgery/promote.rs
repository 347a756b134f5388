//! Constants as inputs, and inputs as constants.

use super::{SurgeryError, check_fits, check_values};
use crate::{Graph, Node, Parameter, ParameterData, Tensor, Value};

impl Graph {
    /// Makes a constant an input of the graph, after those that are there, and returns what it was. The
    /// value stays the same for all that reads it.
    ///
    /// A parameter that is an input with a default value keeps its place among the inputs and loses the
    /// default.
    ///
    /// # Errors
    /// If the value is not a dense parameter or `Constant`, or has to stay a constant.
    pub fn promote(&mut self, constant: Value) -> Result<Tensor, SurgeryError> {
        check_values(self, &[constant], "constant")?;
        let name = self.value_name(constant).to_owned();
        if self.pinned.contains(&name) {
            return Err(SurgeryError::Pinned { value: name });
        }
        let Some(tensor) = self.constant(constant) else {
            return Err(SurgeryError::NotAConstant { value: name });
        };
        let declared = match self.node(constant.node) {
            Node::Parameter(parameter) => parameter.as_input.clone(),
            _ => None,
        };
        let info = declared.unwrap_or_else(|| tensor.tensor_type().to_value_info(&name));
        self.vertex_mut(constant.node).node = Node::Input(info);
        if !self.inputs.contains(&constant.node) {
            self.inputs.push(constant.node);
        }
        Ok(tensor)
    }

    /// Makes an input of the graph a constant: the inverse of [`Graph::promote`]. The value stays the same
    /// for all that reads it.
    ///
    /// # Errors
    /// If the value is not an input, or the tensor is not of its type.
    pub fn bind(&mut self, input: Value, tensor: Tensor) -> Result<(), SurgeryError> {
        check_values(self, &[input], "input")?;
        let name = self.value_name(input);
        if !matches!(self.node(input.node), Node::Input(_)) {
            let value = name.to_owned();
            return Err(SurgeryError::NotAnInput { value });
        }
        check_fits(name, self.value_type(input), Some(tensor.tensor_type()))?;
        let data = ParameterData::Dense(tensor);
        let parameter = Parameter {
            data,
            as_input: None,
        };
        let vertex = self.vertex_mut(input.node);
        vertex.node = Node::Parameter(Box::new(parameter));
        // It may have been inferred for any size; a constant has its own.
        vertex.outputs[0].inferred = None;
        self.inputs.retain(|&id| id != input.node);
        Ok(())
    }
}
