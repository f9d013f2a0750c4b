// Command kernels runs the tests of the eBPF programs, and the tracer itself, on
// other kernels, each in a virtual machine of its own; `make test-kernels` runs it.
// It needs qemu, cpio and xz, and takes half a minute a kernel: the machines run
// without hardware virtualization.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	dir := flag.String("dir", filepath.Join(os.TempDir(), "dnstrace-kernels"), "where kernels are unpacked and kept")
	arch := flag.String("arch", "amd64", "architecture of the machines: amd64 or arm64")
	only := flag.String("only", "", "only the kernels whose version begins so")
	tests := flag.String("run", "", "only the tests that this regular expression names, as go test -run")
	verbose := flag.Bool("v", false, "print what every machine prints")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	m, ok := machines[*arch]
	if !ok {
		fmt.Fprintf(os.Stderr, "kernels: -arch %s: want amd64 or arm64\n", *arch)
		os.Exit(2)
	}
	if *arch != "amd64" {
		*dir = filepath.Join(*dir, *arch)
	}
	if *tests != "" { // what follows -- on the kernel's command line is for init
		m.append += " -- " + *tests
	}
	if err := run(ctx, m, *dir, *only, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, m machine, dir, only string, verbose bool) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := command(ctx, "integration/kernels/get-kernels", dir, m.arch); err != nil {
		return fmt.Errorf("get the kernels: %w", err)
	}
	all, err := kernels(dir, only)
	if err != nil {
		return err
	}
	image, err := buildImage(ctx, dir, m.arch)
	if err != nil {
		return fmt.Errorf("build the test image: %w", err)
	}
	failures := 0
	for _, k := range all {
		start := time.Now()
		out, err := m.test(ctx, k, image, dir)
		if err == nil && verbose {
			fmt.Print(out)
		}
		result := "ok"
		if err != nil {
			failures++
			result = "FAILED: " + err.Error() + "\n" + out
		}
		fmt.Printf("%-32s %5.1f s  %s\n", k.version, time.Since(start).Seconds(), result)
	}
	if failures > 0 {
		return fmt.Errorf("%d of %d kernels failed", failures, len(all))
	}
	fmt.Printf("%d kernels passed\n", len(all))
	return nil
}

// kernel is one that is unpacked.
type kernel struct{ version, image, modules string }

// kernels returns those below dir. Since 6.19 they are not in /boot, and where
// modules are depends on the release of Debian; where they are lost, modules is "".
func kernels(dir, only string) ([]kernel, error) {
	var all []kernel
	for _, pattern := range []string{"*/boot/vmlinuz-*", "*/usr/lib/modules/*/vmlinuz"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, err
		}
		for _, image := range found {
			below, err := filepath.Rel(dir, image)
			if err != nil {
				return nil, err
			}
			version, _, _ := strings.Cut(below, "/")
			if !strings.HasPrefix(version, only) {
				continue
			}
			k := kernel{version: version, image: image}
			for _, below := range []string{"lib", "usr/lib"} {
				modules := filepath.Join(dir, version, below, "modules", version, "kernel")
				if _, err := os.Stat(modules); err == nil {
					k.modules = modules
				}
			}
			all = append(all, k)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no kernel %s below %s", only, dir)
	}
	slices.SortFunc(all, func(a, b kernel) int { return strings.Compare(a.image, b.image) })
	return all, nil
}

func command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(name), err)
	}
	return nil
}
