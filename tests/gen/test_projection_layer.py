"""The layer: what the kernels give, with the exact transpose as gradient to any order, on either backend."""

import gc

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from allpet_gen import _operator_matrix
from allpet_gen.projection_layer import ProjectionLayer, back_project, project
from allpet_physics.acquisition import AcquisitionModel
from allpet_physics.errors import GeometryError, InputError
from allpet_physics.geometry import ParallelGeometry
from allpet_physics.operators import LinearOperator, stack
from allpet_physics.point_spread import GaussianPSF
from allpet_physics.radon import RadonOperator

SMALL = ParallelGeometry(5, 7, 2.0, (6, 5), 2.3)
LARGER = ParallelGeometry(24, 41, 3.1, (30, 26), 2.9, 2 * np.pi)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small projections wait for threads longer than they compute."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


class Differences(LinearOperator):
    """First differences of a vector: an operator that the layer has never heard of."""

    in_shape, out_shape = (9,), (8,)

    def _apply(self, x):
        return np.diff(x, axis=-1)

    def _adjoint(self, y):
        return -np.diff(np.pad(y, ((0, 0), (1, 1))), axis=-1)


class Identity(LinearOperator):
    in_shape = out_shape = (4,)

    def _apply(self, x):
        return x

    _adjoint = _apply


def operators(geometry):
    strip, joseph, blur = RadonOperator(geometry), RadonOperator(geometry, "joseph"), GaussianPSF(geometry, 5.0)
    return {
        "strip": strip,
        "joseph": joseph,
        "subset": strip.subset([4, 1]),
        "transpose": joseph.T,
        "blur": blur,
        "composition": strip @ blur,
        "sum": 2 * strip - joseph,
        "stack": stack(strip.subsets(2)),
        "unknown": Differences(),
    }


def random_tensor(shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("backend", ["kernels", "torch"])
@pytest.mark.parametrize("name", list(operators(SMALL)))
def test_gradients_to_second_order(name, backend):
    operator = operators(SMALL)[name]
    x = random_tensor((2, *operator.in_shape)).requires_grad_()
    y = random_tensor((2, *operator.out_shape)).requires_grad_()

    def forward(x):
        return project(operator, x, backend=backend)

    def back(y):
        return back_project(operator, y, backend=backend)

    for function, argument in ((forward, x), (back, y)):
        assert gradcheck(function, argument, fast_mode=True)
        # The cube has a second derivative that is not zero.
        assert gradgradcheck(lambda a, f=function: f(a).pow(3), argument, fast_mode=True)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", list(operators(LARGER)))
def test_both_backends_are_the_operator_and_its_transpose(name, dtype, limit):
    operator = operators(LARGER)[name]
    x, y = random_tensor((3, *operator.in_shape), dtype), random_tensor((3, *operator.out_shape), dtype, 1)
    for backend in ("auto", "kernels", "torch"):
        ax = project(operator, x, backend=backend)
        aty = back_project(operator, y, backend=backend)
        assert ax.dtype == aty.dtype == dtype
        for got, wanted in ((ax, operator(x.numpy())), (aty, operator.T(y.numpy()))):
            assert np.linalg.norm(got.numpy() - wanted) <= limit * np.linalg.norm(wanted)
        left, right = (ax.double() * y).sum(), (x.double() * aty).sum()
        assert abs(left - right) <= limit * ax.double().norm() * y.double().norm()


@settings(max_examples=15, deadline=None)
@given(n_angles=st.integers(1, 9), n_bins=st.integers(1, 40), bin_mm=st.floats(0.3, 12), rows=st.integers(1, 20),
       cols=st.integers(1, 20), pixel_mm=st.floats(0.3, 12), arc=st.sampled_from([np.pi, 2 * np.pi]),
       model=st.sampled_from(["strip", "joseph"]))
def test_the_matrix_holds_for_any_geometry(n_angles, n_bins, bin_mm, rows, cols, pixel_mm, arc, model):
    """Wide and narrow bins, images larger and smaller than the field: no weight lost, doubled or misplaced."""
    operator = RadonOperator(ParallelGeometry(n_angles, n_bins, bin_mm, (rows, cols), pixel_mm, arc), model)
    units = torch.eye(rows * cols, dtype=torch.float64).reshape(-1, rows, cols)
    columns = operator(units.numpy())
    np.testing.assert_allclose(project(operator, units, backend="torch").numpy(), columns,
                               rtol=0, atol=1e-12 * max(1, columns.max()))


@pytest.mark.parametrize("backend", ["kernels", "torch"])
def test_any_batch_and_any_layout(backend):
    operator = RadonOperator(LARGER)
    x = random_tensor((2, 3, 30, 26))
    wanted = torch.from_numpy(operator(x.numpy()))
    layouts = [x, x.transpose(0, 1).contiguous().transpose(0, 1), torch.stack([x, x], dim=-1)[..., 0],
               x.transpose(-1, -2).contiguous().transpose(-1, -2)]
    for layout in layouts:
        torch.testing.assert_close(project(operator, layout, backend=backend), wanted)
    torch.testing.assert_close(project(operator, x[0, 0], backend=backend), wanted[0, 0])
    assert project(operator, x[:0], backend=backend).shape == (0, 3, 24, 41)
    expanded = x[:1, :1].expand(4, 2, 30, 26)
    assert torch.equal(project(operator, expanded, backend=backend)[3, 1],
                       project(operator, expanded.contiguous(), backend=backend)[3, 1])
    # The gradient of a sum comes back expanded, without a stride.
    x.requires_grad_()
    project(operator, x, backend=backend).sum().backward()
    torch.testing.assert_close(x.grad[1, 2], torch.from_numpy(operator.T(np.ones((24, 41)))))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own, on first use
@pytest.mark.parametrize("backend", ["kernels", "torch"])
def test_function_transforms(backend):
    operator = RadonOperator(SMALL)
    x = random_tensor((6, 5, 4))
    batched = torch.vmap(lambda image: project(operator, image, backend=backend), in_dims=2)(x)
    torch.testing.assert_close(batched, project(operator, x.movedim(2, 0), backend=backend))
    jacobian = torch.func.jacrev(lambda image: project(operator, image, backend=backend))(x[..., 0])
    ones = operator.T(np.eye(35).reshape(35, 5, 7)).reshape(5, 7, 6, 5)
    torch.testing.assert_close(jacobian, torch.from_numpy(ones))
    value, slope = torch.func.jvp(lambda image: project(operator, image, backend=backend), (x[..., 0],), (x[..., 1],))
    torch.testing.assert_close((value, slope), (batched[0], batched[1]))


def test_a_result_is_never_a_view_of_its_input():
    x = random_tensor(4)
    y = project(Identity(), x)
    y += 1
    torch.testing.assert_close(x, random_tensor(4), rtol=0, atol=0)


def test_the_kernels_read_a_tensor_in_place(monkeypatch):
    operator = RadonOperator(SMALL)
    seen = []
    apply = RadonOperator._apply
    monkeypatch.setattr(RadonOperator, "_apply", lambda self, x: seen.append(x) or apply(self, x))
    x = random_tensor((2, 6, 5))
    project(operator, x)
    assert seen[0].__array_interface__["data"][0] == x.data_ptr()


def test_matrices_are_kept_for_inference_and_training_and_go_with_their_operator():
    operator = RadonOperator(SMALL)
    x = random_tensor((1, 6, 5))
    with torch.inference_mode():
        project(operator, x, backend="torch")
    before = _operator_matrix._kept[operator][x.device, x.dtype]
    x.requires_grad_()
    project(operator, x, backend="torch").square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert _operator_matrix._kept[operator][x.device, x.dtype] is before
    number = len(_operator_matrix._kept)
    del operator, before, x
    gc.collect()
    assert len(_operator_matrix._kept) < number


def test_the_layer_of_an_acquisition_model_gives_its_expectation_and_gradient():
    rng = np.random.default_rng(0)
    projector = RadonOperator(LARGER)
    model = AcquisitionModel(projector, multiplicative=rng.uniform(0, 1, projector.out_shape),
                             additive=rng.uniform(0, 2, (2, *projector.out_shape)),
                             image_operator=GaussianPSF(LARGER, 6.0))
    image = rng.uniform(0, 5, (2, *projector.in_shape))
    counts = rng.poisson(model.expected(image)).astype(float)
    for backend in ("kernels", "torch"):
        layer = ProjectionLayer(model, backend=backend)
        assert not list(layer.parameters())
        assert not layer.state_dict()
        x = torch.tensor(image, requires_grad=True)
        mean = layer(x)
        np.testing.assert_allclose(mean.detach().numpy(), model.expected(image), rtol=1e-12)
        y = torch.from_numpy(counts)
        (torch.xlogy(y, mean) - mean).sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), model.gradient(image, counts), rtol=1e-9, atol=1e-9)
        assert layer(x.float()).dtype == torch.float32


def test_least_squares_by_descent_through_the_layer():
    """The layer in a loop that an optimiser runs: the misfit of consistent data goes to zero."""
    layer = ProjectionLayer(RadonOperator(SMALL))
    truth = random_tensor((6, 5)).abs()
    data = layer(truth)
    x = torch.zeros_like(truth, requires_grad=True)
    optimiser = torch.optim.LBFGS([x], max_iter=200, line_search_fn="strong_wolfe", tolerance_change=1e-16)

    def closure():
        optimiser.zero_grad()
        misfit = (layer(x) - data).square().sum()
        misfit.backward()
        return misfit

    optimiser.step(closure)
    assert closure() < 1e-10 * data.square().sum()


def test_the_estimate_of_bytes_is_near_and_too_large_a_matrix_is_refused():
    for model in ("strip", "joseph"):
        operator = RadonOperator(LARGER, model)
        stored = _operator_matrix._radon_matrix(operator, np.float32)
        assert 0.95 < _operator_matrix._radon_weights(operator) / stored.nnz < 1.2
    with pytest.raises(GeometryError, match=r"would need about [\d,]+ bytes on cpu, but max_matrix_bytes allows 1,000; "
                                            r".*backend=\"kernels\""):
        project(operator, torch.zeros(30, 26), backend="torch", max_matrix_bytes=1000)
    with pytest.raises(GeometryError, match="max_matrix_bytes allows 10;"):
        project(Differences(), torch.zeros(9), backend="torch", max_matrix_bytes=10)
    assert project(operator, torch.zeros(30, 26), backend="kernels", max_matrix_bytes=1).shape == (24, 41)


def test_mistakes_are_named():
    operator = RadonOperator(SMALL)
    good = torch.zeros(6, 5)
    with pytest.raises(InputError, match=r"operator must be a LinearOperator, for example .* but was function"):
        project(lambda x: x, good)
    with pytest.raises(InputError, match="operator must be a LinearOperator"):
        ProjectionLayer(good)
    with pytest.raises(InputError, match="backend must be one of auto, kernels, torch, but was 'cuda'"):
        project(operator, good, backend="cuda")
    with pytest.raises(InputError, match="max_matrix_bytes must be an integer of at least 1, but was 0"):
        ProjectionLayer(operator, max_matrix_bytes=0)
    with pytest.raises(InputError, match=r"image must be a torch tensor, but was ndarray; .*from_numpy"):
        project(operator, np.zeros((6, 5)))
    with pytest.raises(InputError, match=r"image must be float32 or float64, but was torch.float16; .*\.float\(\)"):
        project(operator, good.half())
    with pytest.raises(InputError, match=r"image must have shape \(\.\.\., 6, 5\), but its shape was \(5, 6\)"):
        project(operator, good.T)
    for wrong in (torch.zeros(7), torch.zeros(5, 6)):
        with pytest.raises(InputError, match=r"sinogram must have shape \(\.\.\., 5, 7\)"):
            back_project(operator, wrong)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_cuda_device():
    operator = RadonOperator(LARGER) @ GaussianPSF(LARGER, 5.0)
    x = random_tensor((2, *operator.in_shape), torch.float32).cuda().requires_grad_()
    y = project(operator, x)
    assert y.device.type == "cuda"
    y.square().sum().backward()
    wanted = operator.T(2 * operator(x.detach().cpu().numpy()))
    assert np.linalg.norm(x.grad.cpu().numpy() - wanted) <= 1e-5 * np.linalg.norm(wanted)
