/* Reads the gradients of parameters as a C extension can at best: the getter of torch.Tensor.grad, parameter by
 * parameter. */
#include <Python.h>

/* descriptor: torch.Tensor.grad. Returns a list. */
PyObject* read_gradients(PyObject* descriptor, PyObject* parameters) {
  const PyGetSetDef* const grad = ((PyGetSetDescrObject*)descriptor)->d_getset;
  const Py_ssize_t count = PyList_GET_SIZE(parameters);
  PyObject* const gradients = PyList_New(count);
  for (Py_ssize_t i = 0; gradients != NULL && i < count; ++i) {
    PyObject* const gradient = grad->get(PyList_GET_ITEM(parameters, i), grad->closure);
    if (gradient == NULL) {
      Py_DECREF(gradients);
      return NULL;
    }
    PyList_SET_ITEM(gradients, i, gradient);
  }
  return gradients;
}
