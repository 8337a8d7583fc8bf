// SPDX-License-Identifier: GPL-2.0

//! Nothing here: the module's own files are compiled into the tests beside this one, each with the atomics
//! that it is to run on.
