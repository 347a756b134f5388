//! Runs that are judged by a teacher: of models that output embeddings, and on images without classes.

use bcosc::autodiff::training::Loss;

use super::*;

/// A network that outputs embeddings, and images in one folder.
fn encoder() -> TempDir {
    let folder = workplace_of("Relu", "image_embeds");
    without_classes(&folder);
    folder
}

/// Moves all images into one folder.
fn without_classes(folder: &TempDir) {
    let data = folder.path().join("data");
    for part in ["train", "val"] {
        for class in CLASSES {
            let from = data.join(part).join(class);
            for (index, file) in fs::read_dir(&from).unwrap().enumerate() {
                let name = format!("{part}-{class}-{index}.png");
                fs::rename(file.unwrap().path(), data.join(name)).unwrap();
            }
        }
        fs::remove_dir_all(data.join(part)).unwrap();
    }
}

fn with_teacher(folder: &TempDir, run: &str, loss: Loss) -> TrainOptions {
    let mut options = options(folder, run);
    options.training.teacher = Some(folder.path().join("net.onnx").into());
    options.training.step.loss = loss;
    options.predict = normalized();
    options
}

/// The cosines that a run has recorded, by step.
fn cosines(work: &Path) -> Vec<(u64, f64)> {
    let text = fs::read_to_string(work.join(METRICS)).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let found = lines.filter_map(|line: serde_json::Value| {
        assert_eq!(line.get("val_top1"), None);
        Some((
            line["step"].as_u64().unwrap(),
            line.get("cosine")?.as_f64()?,
        ))
    });
    found.collect()
}

#[test]
fn an_encoder_comes_closer_to_its_teacher() {
    let folder = encoder();
    for (name, loss) in [
        ("cosine", Loss::Cosine),
        ("mse", Loss::MeanSquare),
        ("siglip", Loss::SIGMOID_PAIRS),
    ] {
        let options = with_teacher(&folder, name, loss);
        let trained = run(&folder, &options).unwrap();
        let [before, after] = [trained.before, trained.after].map(|found| found.unwrap());
        assert_eq!(
            (after.top1, after.gridpg, after.residual),
            (None, None, None)
        );
        // In three dimensions, embeddings that differ are not those of the teacher.
        let closer = name == "siglip" || after.cosine > before.cosine;
        assert!(closer, "{name}: {before:?} {after:?}");
        // 36 images, of which 4 are held out.
        let found = cosines(&options.work_dir);
        let steps: Vec<u64> = found.iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, [0, 16, 32, 48]);
        let best = found[1..].iter().map(|(_, cosine)| *cosine);
        let best = best.fold(-1.0, f64::max);
        assert!((trained.best.unwrap() - best).abs() < 1e-9);
        for file in ["best.safetensors", "explanations.png"] {
            assert!(options.work_dir.join(file).exists(), "{file}");
        }
    }
}

#[test]
fn an_encoder_goes_on_where_it_stopped() {
    let folder = encoder();
    let whole = run(&folder, &with_teacher(&folder, "whole", Loss::Cosine)).unwrap();
    let parts = TrainOptions {
        resume: true,
        ..with_teacher(&folder, "parts", Loss::Cosine)
    };
    let net = folder.path().join("net.onnx");
    let stopped = train(net, &parts, &mut |event| match event {
        TrainEvent::Step { step: 16, .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert!(stopped.unwrap().interrupted);
    let rest = run(&folder, &parts).unwrap();
    assert!(bytes(&rest) == bytes(&whole));
    assert_alike(&rest, &whole);
}

#[test]
fn the_command_prints_cosines() {
    let folder = encoder();
    let mut command = train_command(
        &folder,
        "-o tuned.onnx -b 4 --steps 4 --augment none --loss cosine --teacher net.onnx --gridpg",
    );
    let done = command.output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    for part in [
        "32 training and 4 validation images",
        "step 4: cosine ",
        "GridPG is left out",
        "wrote tuned.onnx",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn labels_say_nothing_about_embeddings() {
    let folder = workplace_of("Relu", "image_embeds");
    let error = run(&folder, &options(&folder, "run"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("outputs embeddings") && error.contains("--teacher"),
        "{error}"
    );
}

#[test]
fn a_classifier_learns_from_images_without_classes() {
    let folder = workplace();
    without_classes(&folder);
    let options = TrainOptions {
        epochs: 2,
        ..with_teacher(&folder, "run", Loss::MeanSquare)
    };
    let mut noted = Vec::new();
    let trained = train(folder.path().join("net.onnx"), &options, &mut |event| {
        if let TrainEvent::Started { notes, .. } = event {
            noted.extend_from_slice(notes);
        }
        ControlFlow::Continue(())
    });
    let [before, after] = trained.map(|t| [t.before, t.after]).unwrap();
    assert!(after.unwrap().cosine > before.unwrap().cosine);
    let said = noted
        .iter()
        .any(|note| note.contains("used without classes"));
    assert!(said, "{noted:?}");
}
