//! A plan on a device.

use std::ffi::{CString, c_void};
use std::fs;
use std::path::Path;

use cudarc::driver::result as driver;
use cudarc::driver::sys as cu;
use safetensors::SafeTensors;
use safetensors::tensor::{TensorView, serialize_to_file};
use serde_json::Value as Json;

use crate::Result;
use crate::convolution::Convolution;
use crate::gpu::Gpu;
use crate::product::{Added, Product};

/// A tensor of the plan: its place on the device.
pub struct Tensor {
    address: u64,
    bytes: usize,
    /// Sizes.
    pub dims: Vec<u64>,
}

/// The two factors and the result of a call.
pub struct Operands {
    /// Where they are.
    pub addresses: [u64; 3],
    /// Their element types, as the plan names them.
    pub types: [String; 3],
}

/// A step that is ready to run.
pub enum Operation {
    Launch {
        function: cu::CUfunction,
        /// How many addresses, from the first on, are one parameter: a structure.
        table: usize,
        blocks: u32,
        addresses: Vec<u64>,
    },
    Convolution(Convolution),
    Product(Product),
    Copy {
        from: u64,
        to: u64,
        bytes: usize,
    },
}

/// A plan with its memory, kernels and weights.
pub struct Plan {
    json: Json,
    /// Address and bytes of each buffer.
    buffers: Vec<(u64, usize)>,
    /// Kernels, and how many of the addresses of each come as one structure.
    functions: Vec<(cu::CUfunction, usize)>,
    /// What a run does.
    pub steps: Vec<Operation>,
    workspace: u64,
    stream: cu::CUstream,
}

/// The version of plans that this program runs.
const VERSION: u64 = 1;

/// Workspace of a convolution or a product.
pub const WORKSPACE: usize = 1 << 30;

pub fn size(json: &Json, key: &str) -> Result<u64> {
    json[key]
        .as_u64()
        .ok_or_else(|| format!("the plan has no number `{key}`").into())
}

pub fn list<'j>(json: &'j Json, key: &str) -> Result<&'j Vec<Json>> {
    json[key]
        .as_array()
        .ok_or_else(|| format!("the plan has no list `{key}`").into())
}

pub fn sizes(json: &Json) -> Vec<u64> {
    json.as_array()
        .into_iter()
        .flatten()
        .filter_map(Json::as_u64)
        .collect()
}

fn allocate(bytes: u64) -> Result<u64> {
    // SAFETY: what is there is written before it is read.
    Ok(unsafe { driver::malloc_sync(usize::try_from(bytes.max(1))?) }?)
}

impl Plan {
    /// Loads a folder: kernels are compiled, and what depends on constants alone runs.
    pub fn load(gpu: &Gpu, folder: &Path) -> Result<Self> {
        let read = |file: &str| fs::read(folder.join(file)).map_err(|e| format!("{file}: {e}"));
        let json: Json = serde_json::from_slice(&read("plan.json")?)?;
        let version = size(&json, "version")?;
        if version != VERSION {
            return Err(format!(
                "plan.json has version {version}, and this program runs version {VERSION}"
            )
            .into());
        }
        let [arena, prepared] = ["arena", "prepared"].map(|key| allocate(size(&json, key)?));
        let (arena, prepared) = (arena?, prepared?);
        let mut buffers: Vec<(u64, usize)> = Vec::new();
        for buffer in list(&json, "buffers")? {
            let element = match buffer["type"].as_str() {
                Some("f64" | "i64") => 8,
                Some("f32" | "i32") => 4,
                Some("bf16") => 2,
                _ => 1,
            };
            let bytes = size(buffer, "elements")? * element;
            let place = &buffer["place"];
            let address = match (&place["arena"], &place["prepared"], &place["within"]) {
                (Json::Number(offset), ..) => arena + offset.as_u64().unwrap_or(0),
                (_, Json::Number(offset), _) => prepared + offset.as_u64().unwrap_or(0),
                (.., Json::Number(other)) => {
                    let other = usize::try_from(other.as_u64().unwrap_or(u64::MAX))?;
                    buffers
                        .get(other)
                        .ok_or("the plan names a buffer that it does not have")?
                        .0
                }
                _ => allocate(bytes)?,
            };
            buffers.push((address, usize::try_from(bytes)?));
        }
        let functions = kernels(gpu, &json, &read("kernels.cu")?)?;
        let workspace = allocate(WORKSPACE as u64)?;
        let mut plan = Plan {
            json,
            buffers,
            functions,
            steps: Vec::new(),
            workspace,
            stream: gpu.stream,
        };
        for (file, key) in [("constants", "constants"), ("state", "inputs")] {
            let bytes = read(&format!("{file}.safetensors"))?;
            let values = SafeTensors::deserialize(&bytes)?;
            for (name, value) in values.iter() {
                plan.fill(&plan.named(key, name)?, value.data())?;
            }
        }
        let prepare = plan.operations(gpu, "prepare")?;
        plan.run(gpu, &prepare)?;
        plan.steps = plan.operations(gpu, "steps")?;
        Ok(plan)
    }

    fn tensor(&self, binding: &Json) -> Result<Tensor> {
        let (address, bytes) = self.buffer(&binding["buffer"])?;
        Ok(Tensor {
            address,
            bytes,
            dims: sizes(&binding["dims"]),
        })
    }

    /// An input by its place.
    pub fn input(&self, place: usize) -> Result<Tensor> {
        let inputs = list(&self.json, "inputs")?;
        self.tensor(inputs.get(place).ok_or("the plan has no inputs")?)
    }

    /// A tensor of a list, such as `inputs`, by name.
    pub fn named(&self, key: &str, name: &str) -> Result<Tensor> {
        let found = list(&self.json, key)?
            .iter()
            .find(|binding| binding["name"] == name);
        self.tensor(found.ok_or(format!("the plan has no `{name}` among its {key}"))?)
    }

    fn buffer(&self, number: &Json) -> Result<(u64, usize)> {
        let number = number.as_u64().and_then(|n| usize::try_from(n).ok());
        let found = number.and_then(|n| self.buffers.get(n)).copied();
        found.ok_or_else(|| "the plan names a buffer that it does not have".into())
    }

    /// Copies from the host.
    pub fn fill(&self, tensor: &Tensor, data: &[u8]) -> Result<()> {
        if data.len() != tensor.bytes {
            return Err(format!("{} bytes are given, not {}", data.len(), tensor.bytes).into());
        }
        // A copy without a stream may return before its numbers are on the device, and the stream does not wait for it.
        // SAFETY: there is room, and the numbers stay until the copy is done.
        unsafe {
            driver::memcpy_htod_async(tensor.address, data, self.stream)?;
            Ok(driver::stream::synchronize(self.stream)?)
        }
    }

    /// Copies to the host.
    pub fn read(&self, tensor: &Tensor) -> Result<Vec<u8>> {
        let mut data = vec![0; tensor.bytes];
        // SAFETY: there is as much.
        unsafe { driver::memcpy_dtoh_sync(&mut data, tensor.address) }?;
        Ok(data)
    }

    /// Writes the state as it is now, with the names and the metadata of `state.safetensors`.
    pub fn save(&self, folder: &Path, out: &Path) -> Result<()> {
        let bytes = fs::read(folder.join("state.safetensors"))?;
        let metadata = SafeTensors::read_metadata(&bytes)?.1.metadata().clone();
        let before = SafeTensors::deserialize(&bytes)?;
        let mut now = Vec::new();
        for (name, value) in before.iter() {
            let data = self.read(&self.named("inputs", name)?)?;
            now.push((name, value.dtype(), value.shape().to_vec(), data));
        }
        let views = now.iter().map(|(name, dtype, shape, data)| {
            Ok((name, TensorView::new(*dtype, shape.clone(), data)?))
        });
        let views = views.collect::<Result<Vec<_>>>()?;
        Ok(serialize_to_file(views, metadata, out)?)
    }

    fn operations(&self, gpu: &Gpu, key: &str) -> Result<Vec<Operation>> {
        let steps = list(&self.json, key)?.iter();
        steps.map(|step| self.operation(gpu, step)).collect()
    }

    fn operation(&self, gpu: &Gpu, step: &Json) -> Result<Operation> {
        let (kind, step) = step
            .as_object()
            .and_then(|s| s.iter().next())
            .ok_or("a step is empty")?;
        let address = |number: &Json| Ok(self.buffer(number)?.0);
        let three = || -> Result<Operands> {
            let operands = &step["operands"];
            let all = [&operands[0], &operands[1], &step["result"]];
            let buffers = list(&self.json, "buffers")?;
            let name = |number: &Json| {
                let buffer = number
                    .as_u64()
                    .and_then(|n| buffers.get(usize::try_from(n).ok()?));
                buffer
                    .map_or("", |b| b["type"].as_str().unwrap_or(""))
                    .to_owned()
            };
            let [a, b, result] = all.map(address);
            Ok(Operands {
                addresses: [a?, b?, result?],
                types: all.map(name),
            })
        };
        let precision = self.json["precision"].as_str().unwrap_or("fp32");
        Ok(match kind.as_str() {
            "launch" => {
                let (function, table) = *self
                    .functions
                    .get(usize::try_from(size(step, "kernel")?)?)
                    .ok_or("the plan names a kernel that it does not have")?;
                let addresses = list(step, "arguments")?.iter().map(address);
                Operation::Launch {
                    function,
                    table,
                    blocks: u32::try_from(size(step, "blocks")?)?,
                    addresses: addresses.collect::<Result<_>>()?,
                }
            }
            "convolution" => {
                let rounds = precision != "fp32";
                Operation::Convolution(Convolution::new(
                    gpu,
                    &step["convolution"],
                    &three()?,
                    rounds,
                )?)
            }
            "product" => {
                let given = |key: &str| {
                    let buffer = step.get("added").and_then(|added| added.get(key));
                    buffer.map(address).transpose()
                };
                let added = Added {
                    bias: given("bias")?,
                    sum: given("sum")?,
                };
                let product = &step["product"];
                Operation::Product(Product::new(gpu, product, &three()?, &added, precision)?)
            }
            "copy" => {
                let (from, bytes) = self.buffer(&step["from"])?;
                Operation::Copy {
                    from,
                    to: address(&step["to"])?,
                    bytes,
                }
            }
            other => return Err(format!("this program has no step `{other}`").into()),
        })
    }

    /// Runs steps, and waits until they are done.
    pub fn run(&self, gpu: &Gpu, steps: &[Operation]) -> Result<()> {
        let workspace = self.workspace as *mut c_void;
        for step in steps {
            // SAFETY: the plan says which buffers a step reads and writes, and that they are large enough.
            unsafe {
                match step {
                    Operation::Launch {
                        function,
                        table,
                        blocks,
                        addresses,
                    } => {
                        let mut addresses = addresses.clone();
                        let parameters = addresses.iter_mut().enumerate();
                        let parameters = parameters.filter(|(n, _)| *n == 0 || n >= table);
                        let mut parameters: Vec<*mut c_void> =
                            parameters.map(|(_, a)| (&raw mut *a).cast()).collect();
                        let (grid, block) = ((*blocks, 1, 1), (256, 1, 1));
                        driver::launch_kernel(
                            *function,
                            grid,
                            block,
                            0,
                            gpu.stream,
                            &mut parameters,
                        )?;
                    }
                    Operation::Convolution(convolution) => convolution.run(gpu, workspace)?,
                    Operation::Product(product) => product.run(gpu, workspace)?,
                    Operation::Copy { from, to, bytes } => {
                        driver::memcpy_dtod_async(*to, *from, *bytes, gpu.stream)?;
                    }
                }
            }
        }
        // SAFETY: the stream is there.
        Ok(unsafe { driver::stream::synchronize(gpu.stream) }?)
    }
}

/// Compiles the kernels, and finds them by name.
fn kernels(gpu: &Gpu, plan: &Json, text: &[u8]) -> Result<Vec<(cu::CUfunction, usize)>> {
    // Division that is exact in single precision would take longer than memory traffic.
    let options: &[&str] = match plan["precision"].as_str() {
        Some("bf16") => &["--prec-div=false"],
        _ => &[],
    };
    let module = gpu.load(text, options)?;
    let find = |kernel: &Json| {
        let name = kernel["name"].as_str().ok_or("a kernel has no name")?;
        // SAFETY: the module was just loaded, and stays.
        let function = unsafe { driver::module::get_function(module, CString::new(name)?) }?;
        let table = usize::try_from(kernel["table"].as_u64().unwrap_or(0))?;
        Ok((function, table))
    };
    list(plan, "kernels")?.iter().map(find).collect()
}
