package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// brNetfilter appears when the kernel's br_netfilter is there; it lets
// connection tracking see what crosses a bridge.
const brNetfilter = "/proc/sys/net/bridge/bridge-nf-call-iptables"

// preflight says in one error what this machine lacks for a lab.
func preflight() error {
	if os.Geteuid() != 0 {
		return errors.New("the lab makes network namespaces and firewall rules, which needs root: run it as root (sudo)")
	}
	for _, tool := range []string{"iptables", "ip6tables", "iptables-restore", "ip6tables-restore"} {
		if _, err := findTool(tool); err != nil {
			return fmt.Errorf("%s not found: install the Debian package iptables", tool)
		}
	}
	if _, err := os.Stat(brNetfilter); err == nil {
		return nil
	}
	modprobe, err := findTool("modprobe")
	if err != nil {
		return errors.New("the kernel module br_netfilter is not loaded, and modprobe to load it not found: install the Debian package kmod")
	}
	if out, err := exec.Command(modprobe, "br_netfilter").CombinedOutput(); err != nil {
		return fmt.Errorf("load the kernel module br_netfilter: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// findTool finds a program in PATH or in the system folders, which the PATH of
// an ordinary user lacks on Debian.
func findTool(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}

// findBinary returns the absolute path of a binary that `make build` leaves in
// bin/: the configured path, or that of Binary.
func findBinary(configured, name string) (string, error) {
	if configured == "" {
		return Binary(name)
	}
	path, err := filepath.Abs(configured)
	if err != nil {
		return "", err
	}
	return path, mustExist(path, "build")
}

// Binary returns the absolute path of what a target of the Makefile leaves as bin/name
// beside the go.mod above the working directory: a program, or a folder.
func Binary(name string) (string, error) {
	dir, err := moduleDir()
	if err != nil {
		return "", fmt.Errorf("bin/%s: %w", name, err)
	}
	target := "bin/" + name
	if name == "coredns" || name == "dnstrace" {
		target = "build"
	}
	path := filepath.Join(dir, "bin", name)
	return path, mustExist(path, target)
}

// mustExist says which target makes a file that is not there.
func mustExist(path, target string) error {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("%w: run `make %s` first", err, target)
	}
	return nil
}

// moduleDir is the folder of the go.mod above the working directory.
func moduleDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the working directory: set its path in lab.Config")
		}
		dir = filepath.Dir(dir)
	}
}

// tempDirs are the folders in which a lab may make its own; unix socket paths
// are at most 107 bytes long, so a long TMPDIR is passed over.
func tempDirs() []string {
	dirs := []string{os.TempDir(), "/tmp"}
	return slices.DeleteFunc(dirs, func(dir string) bool { return len(dir) > 60 })
}
