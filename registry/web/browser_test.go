package web

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// A browser sees what the pages are for: they render, lead to each other, copy
// the right command, and run nothing that an image brings.
//
// TARE_TEST_SCREENSHOTS names a directory for pictures of the pages.
func TestInBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed: scripts/install chromium=chromium")
	}
	f := fill(t, nil, "")
	f.image("team/app", "v1.2", "amd64", "plain")
	f.image("team/app", "evil", "amd64", hostile)
	f.index("team/multi", "latest", hostile)
	f.index("library/busybox", "1.37", "")
	f.image("library/busybox", "glibc", "amd64", "")
	s := httptest.NewServer(f.pages)
	defer s.Close()
	b := browse(t, chromium, s.URL)

	b.do(chromedp.Navigate(s.URL), chromedp.WaitVisible(`a[href="/images/team/app"]`, chromedp.ByQuery))
	b.picture("repositories", 1200, false)
	b.do(chromedp.Click(`a[href="/images/library/busybox"]`, chromedp.ByQuery), chromedp.WaitVisible(`a[href="/images/library/busybox:1.37"]`, chromedp.ByQuery))
	b.picture("tags", 1200, false)
	b.picture("tags-phone", 400, true)
	b.do(chromedp.Navigate(s.URL+"/images/team/app"), chromedp.Click(`a[href="/images/team/app:v1.2"]`, chromedp.ByQuery),
		chromedp.WaitVisible(`.pull button`, chromedp.ByQuery))
	b.picture("image", 1200, false)
	b.picture("image-dark", 1200, true)
	b.picture("image-phone", 400, false)

	host := strings.TrimPrefix(s.URL, "http://")
	var copied, label string
	b.do(chromedp.ActionFunc(func(ctx context.Context) error {
		for _, name := range []string{"clipboard-read", "clipboard-write"} {
			grant := browser.SetPermission(&browser.PermissionDescriptor{Name: name}, browser.PermissionSettingGranted).WithOrigin(s.URL)
			if err := grant.Do(ctx); err != nil {
				return err
			}
		}
		return nil
	}), chromedp.Click(`.pull button`, chromedp.ByQuery),
		chromedp.Poll(`document.querySelector(".pull button").textContent == "Copied"`, nil, chromedp.WithPollingTimeout(20*time.Second)),
		chromedp.Text(`.pull button`, &label, chromedp.ByQuery),
		chromedp.Evaluate(`navigator.clipboard.readText()`, &copied, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	if want := "docker pull " + host + "/team/app:v1.2"; copied != want {
		t.Errorf("copied %q, want %q", copied, want)
	}

	// Search, by hand.
	b.do(chromedp.SendKeys(`input[name=q]`, "multi\r", chromedp.ByQuery), chromedp.WaitVisible(`a[href="/images/team/multi"]`, chromedp.ByQuery))
	var found int
	b.do(chromedp.Evaluate(`document.querySelectorAll(".list li").length`, &found))
	if found != 1 {
		t.Errorf("the search finds %d repositories", found)
	}
	if n := b.violated(); n != nil {
		t.Errorf("the pages break their own policy: %q", n)
	}

	for _, path := range []string{"/images/team/app:evil", "/images/team/multi:latest", "/images/team/multi", "/?q=%3Cscript%3Edocument.title='PWNED'%3C/script%3E"} {
		var title string
		var images, scripts int
		b.do(chromedp.Navigate(s.URL+path), chromedp.WaitVisible(`footer`, chromedp.ByQuery), chromedp.Title(&title),
			chromedp.Evaluate(`document.images.length`, &images), chromedp.Evaluate(`document.scripts.length`, &scripts))
		if strings.Contains(title, "PWNED") && !strings.Contains(path, "?") || images != 1 || scripts != 1 {
			t.Errorf("%s: title %q, %d images, %d scripts", path, title, images, scripts)
		}
	}
	// The policy holds even where the escaping would not.
	leaky := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Security-Policy", policy())
		fmt.Fprint(w, "<!doctype html><title>calm</title><p id=x>"+hostile)
	}))
	defer leaky.Close()
	var title string
	b.do(chromedp.Navigate(leaky.URL), chromedp.WaitVisible(`#x`, chromedp.ByQuery), chromedp.Title(&title))
	if title != "calm" || b.violated() == nil {
		t.Errorf("the policy lets scripts run: title %q", title)
	}
}

// browsing is a tab.
type browsing struct {
	t    *testing.T
	ctx  context.Context
	mu   sync.Mutex
	said []string // by the browser, of policies
}

func browse(t *testing.T, chromium, url string) *browsing {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.UserDataDir(t.TempDir()))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	limit, release := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(release)
	alloc, end := chromedp.NewExecAllocator(limit, options...)
	t.Cleanup(end)
	ctx, stop := chromedp.NewContext(alloc)
	t.Cleanup(stop)
	b := &browsing{t: t, ctx: ctx}
	chromedp.ListenTarget(ctx, func(event any) {
		if e, ok := event.(*audits.EventIssueAdded); ok && e.Issue.Code == audits.InspectorIssueCodeContentSecurityPolicyIssue {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.said = append(b.said, e.Issue.Details.ContentSecurityPolicyIssueDetails.ViolatedDirective)
		}
	})
	b.do(audits.Enable())
	return b
}

func (b *browsing) do(actions ...chromedp.Action) {
	b.t.Helper()
	if err := chromedp.Run(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

func (b *browsing) violated() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.said
}

// picture keeps what the page looks like, and checks that it fits the screen.
func (b *browsing) picture(name string, width int64, dark bool) {
	b.t.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	var wide int64
	var png []byte
	b.do(chromedp.EmulateViewport(width, 900), emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
		chromedp.Evaluate(`document.documentElement.scrollWidth`, &wide))
	if wide > width {
		b.t.Errorf("%s is %d wide on a screen of %d", name, wide, width)
	}
	if dir := os.Getenv("TARE_TEST_SCREENSHOTS"); dir != "" {
		b.do(chromedp.FullScreenshot(&png, 100))
		if err := os.WriteFile(dir+"/"+name+".png", png, 0o644); err != nil {
			b.t.Error(err)
		}
	}
}
