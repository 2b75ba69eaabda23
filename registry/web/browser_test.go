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
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
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

	b.open("/", `a[href="/images/team/app"]`)
	b.picture("repositories", 1200, false)
	b.click(`a[href="/images/library/busybox"]`, `a[href="/images/library/busybox:1.37"]`)
	b.picture("tags", 1200, false)
	b.picture("tags-phone", 400, true)
	b.open("/images/team/app", `a[href="/images/team/app:v1.2"]`)
	b.click(`a[href="/images/team/app:v1.2"]`, `.pull button`)
	b.picture("image", 1200, false)
	b.picture("image-dark", 1200, true)
	b.picture("image-phone", 400, false)

	for _, name := range []string{"clipboard-read", "clipboard-write"} {
		b.do(call(browser.SetPermission, browser.SetPermissionParams{Permission: &browser.PermissionDescriptor{Name: name},
			Setting: browser.PermissionSettingGranted, Origin: s.URL}))
	}
	b.do(chromedp.Click(chromedp.CSS(`.pull button`)))
	value(b, chromedp.Poll[bool](`document.querySelector(".pull button").textContent == "Copied"`, chromedp.WithPollingTimeout(20*time.Second)))
	copied := value(b, chromedp.Evaluate[string](`navigator.clipboard.readText()`, chromedp.EvalAwaitPromise))
	if want := "docker pull " + strings.TrimPrefix(s.URL, "http://") + "/team/app:v1.2"; copied != want {
		t.Errorf("copied %q, want %q", copied, want)
	}
	b.do(chromedp.SendKeys(chromedp.CSS(`input[name=q]`), "multi\r"), chromedp.WaitVisible(chromedp.CSS(`h1 .part`)))
	if n := value(b, chromedp.Evaluate[int](`document.querySelectorAll(".list li").length`)); n != 1 {
		t.Errorf("the search finds %d repositories", n)
	}
	if n := b.violated(); n != nil {
		t.Errorf("the pages break their own policy: %q", n)
	}
	b.picture("search", 400, true)
	hostilePages(b)
}

// hostilePages opens what an image has filled with scripts. They do not run, and
// the policy holds even where the escaping would not.
func hostilePages(b *browsing) {
	for _, path := range []string{"/images/team/app:evil", "/images/team/multi:latest", "/images/team/multi", "/?q=%3Cscript%3Edocument.title='PWNED'%3C/script%3E"} {
		b.open(path, `footer`)
		title := value(b, chromedp.Title())
		images, scripts := value(b, chromedp.Evaluate[int](`document.images.length`)), value(b, chromedp.Evaluate[int](`document.scripts.length`))
		if strings.Contains(title, "PWNED") || images != 1 || scripts != 1 {
			b.t.Errorf("%s: title %q, %d images, %d scripts", path, title, images, scripts)
		}
	}
	b.open("/images/team/multi:latest", "footer")
	b.picture("index", 1200, false)
	b.picture("index-phone", 400, true)
	leaky := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Security-Policy", policy())
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, `<!doctype html><title>calm</title><p id=x title="`+hostile+`">x`)
	}))
	defer leaky.Close()
	b.url = leaky.URL
	b.open("/", `#x`)
	deadline := time.Now().Add(20 * time.Second)
	for b.violated() == nil && time.Now().Before(deadline) {
		b.do(chromedp.WaitVisible(chromedp.CSS(`#x`)))
	}
	if title := value(b, chromedp.Title()); title != "calm" || b.violated() == nil {
		b.t.Errorf("the policy lets scripts run: title %q", title)
	}
}

// browsing is a tab.
type browsing struct {
	t    *testing.T
	url  string
	ctx  context.Context
	mu   sync.Mutex
	said []string // of policies that were broken
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
	b := &browsing{t: t, url: url}
	ctx, stop := chromedp.NewContext(alloc, chromedp.WithListener(b.hear))
	t.Cleanup(stop)
	b.ctx = ctx
	b.do(call(audits.Enable, cdp.Empty{}))
	return b
}

func (b *browsing) hear(event any) {
	e, ok := event.(*audits.EventIssueAdded)
	if !ok || e.Issue.Code != audits.InspectorIssueCodeContentSecurityPolicyIssue {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.said = append(b.said, e.Issue.Details.ContentSecurityPolicyIssueDetails.ViolatedDirective)
}

// call is a command of the browser's protocol as an action.
func call[P, R any](c cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, c, params)
		return chromedp.Void{}, err
	}
}

func (b *browsing) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

func value[T any](b *browsing, a chromedp.Action[T]) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, a)
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

// open and click wait for something that the page then shows.
func (b *browsing) open(path, shows string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.url+path), chromedp.WaitVisible(chromedp.CSS(shows)))
}

func (b *browsing) click(what, shows string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS(what)), chromedp.WaitVisible(chromedp.CSS(shows)))
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
	b.do(chromedp.EmulateViewport(width, 900), call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}))
	if wide := value(b, chromedp.Evaluate[int64](`document.documentElement.scrollWidth`)); wide > width {
		b.t.Errorf("%s is %d wide on a screen of %d", name, wide, width)
	}
	if dir := os.Getenv("TARE_TEST_SCREENSHOTS"); dir != "" {
		if err := os.WriteFile(dir+"/"+name+".png", value(b, chromedp.FullScreenshot(100)), 0o644); err != nil {
			b.t.Error(err)
		}
	}
}
