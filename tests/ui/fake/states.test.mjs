// Every state of every page, light in English and dark in Korean: it says what it should, it breaks no WCAG rule, and a
// screenshot is kept for people to look at.
import { after, before, test } from 'node:test'
import { openPages } from '../lib/pages.mjs'

let pages
before(async () => (pages = await openPages()))
after(() => pages.close())

// A state: the fake's scenario, the page, and a text that is only there in that state.
const STATES = [
  [
    'home-running',
    'running',
    '#/home',
    'Started in 5.4 sec. 4 containers are running.',
    '5.4초 만에 시작했어요. 컨테이너 4개가 실행 중이에요.',
  ],
  [
    'home-empty',
    'empty',
    '#/home',
    'Started in 5.4 sec. No containers are running.',
    '5.4초 만에 시작했어요. 실행 중인 컨테이너가 없어요.',
  ],
  ['home-stopped', 'stopped', '#/home', 'Use Docker', 'Docker 사용하기'],
  ['home-booting', 'booting', '#/home', 'In progress', '진행 중'],
  [
    'home-failed',
    'failed',
    '#/home',
    'A stage of the start took longer than it may.',
    '시작 단계 하나가 정해진 시간을 넘겼어요.',
  ],
  ['home-emulated', 'emulated', '#/home', 'Good to know', '알아 두면 좋아요'],
  ['home-unreachable', 'unreachable', '#/home', 'Try again', '다시 시도'],
  ['containers-running', 'running', '#/containers', 'hopeful_hopper', 'hopeful_hopper'],
  ['containers-empty', 'empty', '#/containers', 'No containers yet', '아직 컨테이너가 없어요'],
  ['containers-loading', 'loading', '#/containers', 'Connecting', '연결 중'],
  ['containers-stopped', 'stopped', '#/containers', 'The machine is stopped', '머신이 중지되어 있어요'],
  ['containers-preparing', 'preparing', '#/containers', 'The machine is starting', '머신이 시작되고 있어요'],
  ['containers-booting', 'booting', '#/containers', 'The machine is starting', '머신이 시작되고 있어요'],
  ['containers-stopping', 'stopping', '#/containers', 'The machine is stopping', '머신이 중지되고 있어요'],
  ['containers-failed', 'failed', '#/containers', 'The machine failed', '머신에 문제가 생겼어요'],
  [
    'containers-engine-away',
    'engine-away',
    '#/containers',
    'The engine does not answer',
    '엔진이 응답하지 않아요',
  ],
  ['containers-unreachable', 'unreachable', '#/containers', 'Try again', '다시 시도'],
  ['containers-many', 'many', '#/containers', 'job-1', 'job-1'],
]

for (const [name, scenario, address, english, korean] of STATES) {
  for (const [theme, locale] of [
    ['light', 'en'],
    ['dark', 'ko'],
  ]) {
    test(`${name}, ${theme}, ${locale}`, async () => {
      const screen = await pages.open(scenario, address, {
        theme,
        locale,
      })
      await screen.text(locale === 'ko' ? korean : english).waitFor()
      await screen.shot(`${name}-${theme}-${locale}`)
      // What is sound in a list of nine is sound in a long one, and axe takes seconds for that.
      if (scenario !== 'many') await screen.assertSound()
      await screen.close()
    })
  }
}
