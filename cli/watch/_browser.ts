/**
 * Looks at the page of `slotcon watch` in Chromium. Tests start this as another process, since puppeteer-core is none of the
 * project's libraries.
 *
 *     deno run ... _browser.ts SPECIFIER [CHROMIUM URL SCREENSHOT]
 *
 * SPECIFIER is where to import puppeteer-core from; without more this says only whether it loads. The page has to show a run
 * "ended" when it is opened, a run that is going on soon after "opened" was printed, and after "left open" one more. Prints an observation a line, as JSON.
 */
const [specifier, executablePath, url, screenshot] = Deno.args;
const { default: puppeteer } = await import(specifier);

const tell = (what: string, value: unknown = true) => console.log(JSON.stringify([what, value]));

const look = async () => {
  const browser = await puppeteer.launch({
    executablePath,
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--force-prefers-reduced-motion"],
    defaultViewport: { width: 1400, height: 900 },
  });
  try {
    const page = await browser.newPage();
    const problems: string[] = [];
    const asked = new Set<string>();
    page.on("pageerror", (error: Error) => problems.push(error.message));
    page.on("console", (message: { type(): string; text(): string }) => {
      if (message.type() === "error") problems.push(message.text());
    });
    page.on("request", (request: { url(): string }) => asked.add(new URL(request.url()).origin));

    const text = (selector: string): Promise<string> =>
      page.$eval(selector, (element: { textContent: string }) => element.textContent);
    const label = (chart: string): Promise<string> =>
      page.$eval(
        `[data-chart="${chart}"] [role=img]`,
        (element: { getAttribute(name: string): string }) => element.getAttribute("aria-label"),
      );
    const range = async (chart: string) =>
      (await label(chart)).match(/: (\d+) points from (\S+) to (\S+)/)!.slice(1).map(Number);
    const until = async <A>(
      what: string,
      read: () => Promise<A>,
      holds: (value: A) => boolean,
    ): Promise<A> => {
      for (const deadline = Date.now() + 60_000;;) {
        const value = await read();
        if (holds(value)) return value;
        if (Date.now() > deadline) throw new Error(`${what}: still ${JSON.stringify(value)}`);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    };
    const drawn = (chart: string): Promise<string> =>
      page.$eval(`[data-chart="${chart}"] canvas`, (canvas: { toDataURL(): string }) => canvas.toDataURL());

    // A long run: how soon is it there, and how long does the page take for a frame?
    const start = performance.now();
    await page.goto(url);
    await page.waitForSelector('[data-chart="loss"] canvas');
    tell("opened", performance.now() - start);
    tell("whole", await range("loss"));
    const frames: number[] = await page.evaluate(`new Promise((resolve) => {
      const times = [];
      const next = (time) => times.push(time) < 40 ? requestAnimationFrame(next) : resolve(times);
      requestAnimationFrame(next);
    })`);
    tell("longest frame", Math.max(...frames.slice(1).map((time, i) => time - frames[i])));

    // Zooming by drag: finer data of the stretch; a double click shows all again.
    const plot = await page.$('[data-chart="loss"] .u-over');
    const box = await plot.boundingBox();
    const drag = async (from: number, to: number) => {
      const y = box.y + box.height / 2;
      await page.mouse.move(box.x + from * box.width, y);
      await page.mouse.down();
      await page.mouse.move(box.x + (from + to) / 2 * box.width, y, { steps: 4 });
      await page.mouse.move(box.x + to * box.width, y, { steps: 4 });
      await page.mouse.up();
    };
    const before = await drawn("lr");
    await drag(0.5, 0.502 + 20 / box.width);
    const zoomed = await until("zooms", () => range("loss"), ([, from]) => from > 0);
    await until("draws the other charts again", () => drawn("lr"), (image) => image !== before);
    tell("zoomed", zoomed);
    await drag(0.25, 0.75);
    tell("zoomed twice", await until("zooms again", () => range("loss"), ([, from]) => from > zoomed[1]));
    await page.mouse.click(box.x + box.width / 2, box.y + box.height / 2, { count: 2 });
    tell("whole again", await until("shows all", () => range("loss"), ([, from]) => from === 0));

    // A run that is going on: found by itself, alone after the other is hidden, and growing.
    const names = (): Promise<readonly string[]> =>
      page.$$eval(
        "[data-run]",
        (all: { dataset: { run: string } }[]) => all.map(({ dataset }) => dataset.run),
      );
    const live = await until("finds the live run", names, (names) => names.length === 2);
    tell("runs", live);
    await page.keyboard.press("1");
    const stepsOf = async () => (await range("loss"))[2];
    const first = await until("shows the live run alone", stepsOf, (last) => last < 1000);
    const image = await drawn("loss");
    const later = await until("sees the curve grow", stepsOf, (last) => last >= first + 3);
    tell("grown", [first, later, image !== await drawn("loss")]);
    await until(
      "shows slot maps",
      () =>
        page.$$eval(
          "#slots img",
          (all: { complete: boolean; naturalWidth: number }[]) =>
            all.filter(({ complete, naturalWidth }) => complete && naturalWidth > 0).length,
        ),
      (count) => count === 2,
    );
    tell(
      "charts",
      await page.$$eval(
        "article:not([hidden]) h2",
        (all: { textContent: string }[]) => all.map(({ textContent }) => textContent),
      ),
    );

    // Both runs again, in the dark.
    await page.keyboard.press("1");
    await until("shows both runs", stepsOf, (last) => last > 1000);
    tell("legend", await text('[data-chart="loss"] ul'));
    const paper = () => page.evaluate("getComputedStyle(document.body).backgroundColor");
    const light = await paper();
    await page.keyboard.press("d");
    await page.keyboard.press("d");
    tell("dark", [light, await paper()]);
    await page.screenshot({ path: screenshot });
    tell(
      "foreign images",
      await page.$$eval(
        "img",
        (all: { src: string }[]) => all.filter(({ src }) => new URL(src).pathname === "/x").length,
      ),
    );
    tell("origins", [...asked]);
    tell("problems", problems);

    // The page stays open while the server ends and another one begins, which finds one more run before these.
    tell("left open");
    await until("finds the other run", names, (names) => names.length === 3);
    const rows = (): Promise<readonly (readonly string[])[]> =>
      page.$$eval(
        "[data-run]",
        (
          all: {
            dataset: { run: string };
            closest(selector: string): { cells: { textContent: string }[] };
          }[],
        ) =>
          all.map((box) => [
            box.dataset.run,
            ...[1, 2].map((i) => box.closest("tr").cells[i].textContent.trim()),
          ]),
      );
    const isWhole = ([, , steps]: readonly string[]) => /^(\d+) \/ \1$/.test(steps);
    tell("rows", await until("reads all", rows, (rows) => rows.some(isWhole)));
    const legend = () => text('[data-chart="loss"] ul');
    tell("legend later", await until("draws all", legend, (legend) => legend.includes("another")));
  } finally {
    await browser.close();
  }
};

if (executablePath !== undefined) await look();
