package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// leftoverName is what lab names look like: dt<pid>-<n>-<rest>, for
// namespaces and for temporary folders.
var leftoverName = regexp.MustCompile(`^dt([0-9]+)-[0-9]+-`)

// Sweep removes what labs of processes that no longer exist left behind:
// their namespaces, the processes inside those, and their temporary folders.
// Build calls it; it never touches the labs of living processes.
func Sweep() error {
	names, err := leftovers(netnsDir)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, killInside(filepath.Join(netnsDir, name)), removeNetnsFile(name))
	}
	for _, tmp := range tempDirs() {
		folders, err := leftovers(tmp)
		errs = append(errs, err)
		for _, folder := range folders {
			errs = append(errs, os.RemoveAll(filepath.Join(tmp, folder)))
		}
	}
	return errors.Join(errs...)
}

// leftovers lists the entries of dir that a lab of a dead process made.
func leftovers(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		m := leftoverName.FindStringSubmatch(entry.Name())
		if m == nil {
			continue
		}
		pid, err := strconv.Atoi(m[1])
		if err != nil || alive(pid) {
			continue
		}
		names = append(names, entry.Name())
	}
	return names, nil
}

// alive tells whether a process runs; one that is dead but not yet buried by
// its parent does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// pid (name) state …; the name may hold anything, parentheses too.
	_, state, _ := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')'):]), " ")
	return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}

// killInside kills the processes in the named namespace at path, except this
// one: whoever runs in a namespace of a lab was started for it, and a process
// that outlives the lab would keep the namespace alive.
func killInside(path string) error {
	var ns unix.Stat_t
	if err := unix.Stat(path, &ns); err != nil {
		return nil // gone already
	}
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, proc := range procs {
		pid, err := strconv.Atoi(proc.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		var its unix.Stat_t
		if unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &its) != nil || its.Ino != ns.Ino || its.Dev != ns.Dev {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill process %d left in %s: %w", pid, path, err)
		}
	}
	return nil
}
