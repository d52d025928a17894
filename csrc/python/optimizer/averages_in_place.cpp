#include "python/optimizer/averages_in_place.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <utility>

#include "cpu/master.h"
#include "python/torch/tensor_checks.h"

namespace clr {

namespace {

// A tensor as dense memory. That is the tensor's own memory or, on the CPU, a copy that put_back() writes back into the
// tensor.
class DenseTensor {
 public:
  DenseTensor(const py::object& tensor, const Layout& dense, const char* role) : tensor_(tensor) {
    const DLTensor view = must_read(tensor, role);
    data_ = data_of(view);
    if (!is_cpu(view.device) || same_strides(dense, view)) return;
    copy_ = strided_copy(0, view, dense, StridedCopy::Use::read_and_written);
    data_ = copy_->data();
  }

  const py::object& tensor() const { return tensor_; }
  void* data() const { return data_; }
  void put_back() const {
    if (copy_) copy_->put_back();
  }

 private:
  py::object tensor_;
  void* data_;
  std::optional<StridedCopy> copy_;
};

// A parameter with its average and its master weight, checked and ready to exchange values.
class Exchange {
 public:
  Exchange(const py::object& parameter, const py::object& average, const py::object& master) {
    const Layout layout(must_read(parameter, "a parameter"));
    require_writable(layout, parameter, "a parameter");
    dtype_ = dtype_of(layout, parameter, "a parameter");
    size_ = layout.size();
    on_cpu_ = is_cpu(layout.device);
    const Layout dense = density_of(layout) == Density::dense
                             ? layout
                             : Layout(must_read(TorchReader::get().empty_like(parameter), "a dense copy"));
    const DType wide = master.is_none() ? dtype_ : DType::float32;
    add(parameter, dtype_, layout, dense, parameter, "a parameter");
    add(average, wide, layout, dense, parameter, "average");
    if (!master.is_none()) add(master, wide, layout, dense, parameter, "master_weight");
  }

  const py::object& parameter() const { return tensors_[0].tensor(); }

  // With a master weight, the parameter is overwritten: the master keeps the weight. Without one, the values of
  // parameter and average are swapped.
  void run(bool entering) const {
    if (!on_cpu_) return run_on_device(entering);
    if (tensors_.size() == 3) {
      auto* const master = static_cast<float*>(tensors_[2].data());
      if (entering) obey_parameter(dtype_, tensors_[0].data(), master, size_);
      round_to_half(dtype_, entering ? static_cast<float*>(tensors_[1].data()) : master, tensors_[0].data(), size_);
    } else {
      auto* const first = static_cast<char*>(tensors_[0].data());
      std::swap_ranges(first, first + size_ * size_of(dtype_), static_cast<char*>(tensors_[1].data()));
    }
    for (const DenseTensor& tensor : tensors_) tensor.put_back();
  }

  bool is_on_cpu() const { return on_cpu_; }

 private:
  void add(const py::object& tensor, DType dtype, const Layout& layout, const Layout& dense, py::handle parameter,
           const char* role) {
    require_alike(layout, dtype, must_read(tensor, role), tensor, parameter, role);
    tensors_.emplace_back(tensor, dense, role);
  }

  // Does the same as run() with torch's own functions.
  void run_on_device(bool entering) const {
    const TorchReader& torch = TorchReader::get();
    const py::object &weight = tensors_[0].tensor(), &average = tensors_[1].tensor();
    if (tensors_.size() == 2) {
      const py::object kept = weight.attr("detach")().attr("clone")();
      torch.copy(weight, average);
      torch.copy(average, kept);
      return;
    }
    const py::object master = tensors_[2].tensor().attr("detach")(), own = weight.attr("detach")();
    if (entering) {
      const py::object same = master.attr("to")(own.attr("dtype")).attr("eq")(own);
      torch.copy(master, master.attr("where")(same, own.attr("to")(master.attr("dtype"))));
    }
    torch.copy(weight, entering ? average : master);
  }

  std::deque<DenseTensor> tensors_;  // parameter, average, and the master weight if there is one
  DType dtype_{};
  std::int64_t size_ = 0;
  bool on_cpu_ = true;
};

}  // namespace

void AveragesInPlace::exchange(bool entering) {
  std::deque<Exchange> exchanges;
  py::list parameters;
  for (const py::handle each : py::list(inside_entries_)) {
    const py::tuple entry = py::reinterpret_borrow<py::tuple>(each);
    exchanges.emplace_back(entry[0], entry[1], entry[2]);
    parameters.append(entry[0]);
    const py::object parameter = entry[0];
    const auto local = py::handle(TorchReader::get().local(parameter.ptr()));
    if (!parameter.is(local)) parameters.append(local);
  }
  TorchReader::get().increment_version(parameters);
  inside_ = true;  // until the last exchange is done
  for (const Exchange& each : exchanges) {
    if (!each.is_on_cpu()) {
      each.run(entering);
      continue;
    }
    const py::gil_scoped_release release;
    each.run(entering);
  }
  inside_ = entering;
}

void AveragesInPlace::enter() {
  refuse_inside("averaged_weights()");
  inside_entries_ = entries_();
  exchange(true);
}

void AveragesInPlace::leave() {
  if (!inside_) return;
  exchange(false);
  inside_entries_ = py::object();
}

}  // namespace clr
