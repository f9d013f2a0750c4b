// Command kernels runs the tests of the eBPF programs, and the tracer itself, on
// other kernels, each in a virtual machine of its own; `make test-kernels` runs it.
// It needs qemu, cpio and xz. Two kernels run at once, and each takes minutes, where others
// work beside it the better part of an hour: the machines have no hardware virtualization,
// and nearly every test waits for the verifier.
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

	"golang.org/x/sync/errgroup"

	"github.com/dnstrace/dnstrace/integration/kernels/feature"
)

func main() {
	dir := flag.String("dir", filepath.Join(os.TempDir(), "dnstrace-kernels"), "where kernels are unpacked and kept, and what each machine prints is in VERSION.log")
	arch := flag.String("arch", "amd64", "architecture of the machines: amd64 or arm64")
	only := flag.String("only", "", "only the kernels whose version begins so")
	tests := flag.String("run", "", "only the tests that this regular expression names, as go test -run")
	jobs := flag.Int("jobs", 2, "how many machines run at once; each has two processors, and is busy on one for most of its time")
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
	m.whole = *tests == ""
	if *tests != "" { // what follows -- on the kernel's command line is for init
		m.append += " -- " + *tests
	}
	if err := run(ctx, m, options{*dir, *only, *jobs, *verbose}); err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		os.Exit(1)
	}
}

type options struct {
	dir, only string
	jobs      int
	verbose   bool
}

// result is what came of a kernel.
type result struct {
	kernel
	out   string
	err   error
	took  time.Duration
	lacks []lack
	found map[feature.Feature]feature.Verdict
}

func run(ctx context.Context, m machine, o options) error {
	began := time.Now()
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	if err := command(ctx, "integration/kernels/get-kernels", o.dir, m.arch); err != nil {
		return fmt.Errorf("get the kernels: %w", err)
	}
	all, err := kernels(o.dir, o.only)
	if err != nil {
		return err
	}
	image, err := buildImage(ctx, o.dir, m.arch)
	if err != nil {
		return fmt.Errorf("build the test image: %w", err)
	}
	results := make([]result, len(all))
	var g errgroup.Group
	g.SetLimit(o.jobs)
	for i, k := range all {
		g.Go(func() error {
			results[i] = m.judged(ctx, k, image, o.dir)
			results[i].print(o.verbose)
			return nil
		})
	}
	_ = g.Wait() // the results have the errors
	fmt.Println(table(results))
	failures := 0
	for _, r := range results {
		if r.err != nil {
			failures++
		}
	}
	if failures > 0 {
		return fmt.Errorf("%d of %d kernels failed", failures, len(all))
	}
	fmt.Printf("%d kernels passed in %.0f s\n", len(all), time.Since(began).Seconds())
	return nil
}

// judged tests a kernel, and compares what it proved with the list of what it lacks.
func (m machine) judged(ctx context.Context, k kernel, image, dir string) result {
	start := time.Now()
	r := result{kernel: k}
	if r.lacks, r.err = lacksOf(m.arch, k.version); r.err != nil {
		return r
	}
	r.out, r.err = m.test(ctx, k, r.lacks, image, dir)
	r.took, r.found = time.Since(start), verdicts(r.out)
	if r.err == nil && m.whole {
		r.err = judge(r.found, r.lacks)
	}
	return r
}

func (r *result) print(verbose bool) {
	verdict := "ok"
	switch {
	case r.err != nil:
		verdict = "FAILED: " + r.err.Error() + "\n" + r.out
	case verbose:
		verdict += "\n" + r.out
	}
	fmt.Printf("%-32s %5.1f s  %s\n", r.version, r.took.Seconds(), verdict)
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
