from vita_hf.training.log import TrainingLog


def test_log_drops_a_line_that_was_cut_short(tmp_path):
    log = TrainingLog(tmp_path / "log.jsonl")
    log.write({"step": 1})
    log.write({"step": 2})
    with log.path.open("a") as file:
        file.write('{"step": 3')
    log.rewind(1)
    assert log.entries() == [{"step": 1}]
    assert log.path.read_text() == '{"step": 1}\n'


def test_only_one_process_writes(tmp_path):
    log = TrainingLog(tmp_path / "log.jsonl", enabled=False)
    log.write({"step": 1})
    log.rewind(0)
    assert log.entries() == [] and not log.path.exists()
